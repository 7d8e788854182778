"""The examples for containers and clusters, as far as they can be checked without one.

KServe's and Ray's own schemas are used where the packages are installed.
"""

import ast
from pathlib import Path

import pytest
import yaml

from softhub.serving.vllm.sources import parse_sources
from softhub.serving.vllm.supported import VERSIONS

EXAMPLES = Path(__file__).parents[3] / "examples" / "vllm"


def test_kserve_starts_every_replica_from_one_lock_file():
    record = yaml.safe_load((EXAMPLES / "kserve.yaml").read_text())
    assert record["kind"] == "InferenceService"
    (container,) = record["spec"]["predictor"]["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert variables["VLLM_PLUGINS"] == "softhub"
    (lock,) = parse_sources(variables["SOFTHUB_PROMPTS"]).locks
    (mount,) = container["volumeMounts"]
    assert str(lock.parent) == mount["mountPath"]
    assert mount["name"] in {volume["name"] for volume in record["spec"]["predictor"]["volumes"]}


def test_kserve_knows_every_field_of_its_example():
    kserve = pytest.importorskip("kserve", reason="kserve is not installed")
    kubernetes = pytest.importorskip("kubernetes.client", reason="kubernetes is not installed")
    record = yaml.safe_load((EXAMPLES / "kserve.yaml").read_text())
    predictor = record["spec"]["predictor"]
    (container,), (volume,) = predictor["containers"], predictor["volumes"]
    for fields, kind in (
        (record, kserve.V1beta1InferenceService),
        (record["spec"], kserve.V1beta1InferenceServiceSpec),
        (predictor, kserve.V1beta1PredictorSpec),
        (container, kubernetes.V1Container),
        (volume, kubernetes.V1Volume),
    ):
        assert set(fields) <= set(kind.attribute_map.values()), kind


def test_ray_reads_its_example():
    schema = pytest.importorskip("ray.serve.schema", reason="ray[serve] is not installed")
    record = yaml.safe_load((EXAMPLES / "ray_serve.yaml").read_text())
    schema.ServeDeploySchema.model_validate(record)


def test_the_application_of_ray_is_what_its_config_names():
    record = yaml.safe_load((EXAMPLES / "ray_serve.yaml").read_text())
    (application,) = record["applications"]
    module, name = application["import_path"].split(":")
    tree = ast.parse((EXAMPLES / f"{module}.py").read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    (deployment,) = application["deployments"]
    assert {name, deployment["name"]} <= defined
    assert set(application["args"]) == {"base", "prompts"}


def test_the_image_has_a_release_that_was_run():
    text = (EXAMPLES / "Dockerfile").read_text()
    assert f"vllm-openai:v{VERSIONS[-1]}." in text
    assert "--enable-prompt-embeds" in text and "VLLM_PLUGINS=softhub" in text

"""The engine's thread goes on after a failure: only the rows that it concerns fail."""

import asyncio
import time
from dataclasses import replace

import pytest
import torch

from softhub.inference import continuous_batch
from softhub.serving import builtin
from softhub.serving.builtin import BuiltInEngine
from softhub.serving.protocol import Row
from tests.prompts import SUMMARY, TEXTS, soft_prompt


@pytest.fixture
def engine(model_of):
    engine = BuiltInEngine(model_of("llama"))
    yield engine
    if engine.state().ready:
        engine.close()


def exhausted(*_, **__):
    raise torch.OutOfMemoryError("out of memory")


def exhausted_once(monkeypatch, owner, name):
    """Let a function run out of memory on its next call only."""
    real = getattr(owner, name)

    def once(*_, **__):
        monkeypatch.setattr(owner, name, real)
        exhausted()

    monkeypatch.setattr(owner, name, once)


async def started(engine, text, tokens=300):
    """Return a row of the bare base that is running: its first text has come."""
    endless = [engine.model.base.tokenizer.eos_token_id]
    options = [{"max_new_tokens": tokens, "suppress_tokens": endless}]
    rows = [Row(text, engine.find(None, "base"))]
    generation = await engine.generate(rows, options)
    await anext(generation)
    return generation


async def text_of(generation):
    return "".join([each.text async for each in generation])


async def continued(engine, text):
    """Return what the engine makes of a text now."""
    rows = [Row(text, engine.find(None, "base"))]
    generation = await engine.generate(rows, [{"max_new_tokens": 5}])
    return await asyncio.wait_for(text_of(generation), 60)


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario, 120))


def test_a_cancellation_that_fails_ends_the_running_rows_only(engine, monkeypatch):
    async def scenario():
        leaving, staying = [await started(engine, text) for text in TEXTS[:2]]
        exhausted_once(monkeypatch, continuous_batch, "select_rows")
        leaving.close()
        with pytest.raises(torch.OutOfMemoryError):
            await text_of(staying)
        return await continued(engine, TEXTS[2])

    assert run(scenario()) == engine.model.generate(TEXTS[2], max_new_tokens=5)


def test_rows_that_cannot_be_removed_after_they_failed_to_join_end_the_running_ones(
    engine, monkeypatch
):
    """A new row fails after it has joined, and removing it fails too."""

    async def scenario():
        running = await started(engine, TEXTS[0])
        exhausted_once(monkeypatch, continuous_batch, "select_rows")
        with monkeypatch.context() as patched:  # called after the rows have joined
            patched.setattr(continuous_batch.PassCost, "observe", exhausted)
            with pytest.raises(torch.OutOfMemoryError):
                await started(engine, TEXTS[1])
        with pytest.raises(torch.OutOfMemoryError):
            await text_of(running)
        return await continued(engine, TEXTS[2])

    assert run(scenario()) == engine.model.generate(TEXTS[2], max_new_tokens=5)


def test_a_failure_beside_the_passes_ends_the_running_rows_only(engine, monkeypatch):
    """What the loop does between its passes may fail as well."""

    async def scenario():
        running = await started(engine, TEXTS[0], tokens=60)
        exhausted_once(monkeypatch, engine._pass_cost, "observe")
        rows = [Row(TEXTS[1], engine.find("mood", "mood"))]
        (found,) = await engine.classify(rows)
        with pytest.raises(torch.OutOfMemoryError):
            await text_of(running)
        return found.prediction, await continued(engine, TEXTS[2])

    prediction, text = run(scenario())
    assert prediction.label == engine.model.predict(TEXTS[1], prompt="mood").label
    assert text == engine.model.generate(TEXTS[2], max_new_tokens=5)


def test_rows_to_score_are_answered_if_no_batch_of_them_can_be_chosen(engine, monkeypatch):
    rows = [Row(TEXTS[0], engine.find("mood", "mood"))]

    async def scenario():
        exhausted_once(monkeypatch, builtin, "choose_batch")
        with pytest.raises(torch.OutOfMemoryError):
            await asyncio.wait_for(engine.classify(rows), 60)
        return await engine.classify(rows)

    (found,) = run(scenario())
    assert found.prediction.label == engine.model.predict(TEXTS[0], prompt="mood").label


def test_an_engine_whose_thread_has_ended_accepts_nothing(engine, monkeypatch):
    monkeypatch.setattr(engine, "_has_work", lambda: False)

    async def scenario():
        rows = [Row(TEXTS[0], engine.find("mood", "mood"))]
        await engine.classify(rows)  # the thread ends after it
        engine._thread.join(60)
        with pytest.raises(RuntimeError, match=r"thread has ended after an error.*restart"):
            await continued(engine, TEXTS[0])

    run(scenario())
    assert not engine.state().ready


@pytest.mark.parametrize("path", ["/v1/completions", "/try"])
def test_an_internal_error_of_an_answer_that_has_begun_is_logged(path, serve, monkeypatch, caplog):
    """The client is told that the log has the details."""
    server = serve()
    monkeypatch.setattr(continuous_batch, "join_prefixes", exhausted)
    if path == "/try":
        answer = server.http.post(path, data={"model": "summary", "text": "x"})
    else:
        answer = server.post(path, model="summary", prompt="x", stream=True)
    assert "log has the details" in answer.text
    (record,) = [each for each in caplog.records if each.getMessage() == "A request failed"]
    assert record.exc_info[0] is torch.OutOfMemoryError
    if path != "/try":  # whose answer has only the page so far
        counted = f'softhub_requests_total{{route="{path}",status="500"}} 1.0'
        deadline = time.monotonic() + 60  # it is counted after the client has read the answer
        while counted not in server.http.get("/metrics").text:
            assert time.monotonic() < deadline


def test_what_a_client_did_wrong_is_not_logged_as_a_failure(serve, caplog):
    beams = {"model": "beams", "prompt": "x", "logprobs": 1, "stream": True}
    server = serve()
    task = replace(SUMMARY, generation={"num_beams": 2})
    server.model.load_prompt(soft_prompt(server.model.base, 4, task), name="beams")
    assert "logprobs is not available" in server.post("/v1/completions", **beams).text
    assert not [each for each in caplog.records if each.getMessage() == "A request failed"]

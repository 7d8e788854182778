"""Every route against `PromptModel` alone, through OpenAI's own client and plain HTTP."""

import json
import re
from dataclasses import replace

import openai
import pytest
from pydantic import ValidationError

from softhub.inference.engine import PromptModel
from softhub.inference.streaming import TokenLogprob
from softhub.model.loading import load_base
from softhub.serving.answers import AnswerFormat, Choice
from softhub.serving.api_types import ChatBody, ClassifyBody, CompletionBody, ScoreBody
from tests.prompts import MOOD, SUMMARY, TEXTS, prefix, soft_prompt
from tests.serving.server import running

SAMPLED = {"temperature": 1.2, "top_p": 0.9, "seed": 7}
CHAT = [
    {"role": "system", "content": "You are a careful assistant."},
    {"role": "user", "content": "Is the screen good?"},
]


def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


def generated(model, texts, name, **options):
    return model.generate(texts, prompt=name, **options)


# --- models ---


def test_models_are_the_base_and_its_prompts(serve):
    server = serve()
    found = client(server).models.list().data
    assert [each.id for each in found] == ["example/tiny-llama", "base", "mood", "topic", "summary"]
    assert [each.parent for each in found] == [None, *["example/tiny-llama"] * 4]
    assert client(server).models.retrieve("mood").id == "mood"
    with pytest.raises(openai.NotFoundError):
        client(server).models.retrieve("nothing")


def test_a_base_whose_folder_is_called_base_is_listed_once(tiny_base):
    base = load_base(tiny_base("llama"), name="base")
    with running(PromptModel(base)) as server:
        assert [each.id for each in client(server).models.list().data] == ["base"]


# --- texts ---


@pytest.mark.parametrize("kind", ["llama", "mistral", "t5"])
@pytest.mark.parametrize("name", ["summary", "base", "topic"])
def test_completions_are_what_generate_gives(kind, name, serve):
    server = serve(kind)
    found = client(server).completions.create(model=name, prompt=TEXTS, max_tokens=7)
    prompt = None if name == "base" else name
    assert [choice.text for choice in found.choices] == generated(
        server.model, TEXTS, prompt, max_new_tokens=7
    )
    assert [choice.index for choice in found.choices] == list(range(len(TEXTS)))
    assert {choice.finish_reason for choice in found.choices} <= {"length", "stop"}
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found.usage.completion_tokens <= 7 * len(TEXTS)


def test_what_a_request_leaves_out_is_the_tasks(serve):
    server = serve()
    found = client(server).completions.create(model="summary", prompt=TEXTS[0])
    assert found.choices[0].text == server.model.generate(TEXTS[:1], prompt="summary")[0]
    assert found.usage.completion_tokens == 6  # the task's max_new_tokens


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_a_streamed_completion_is_the_whole_one(kind, serve):
    server = serve(kind)
    options = {"model": "summary", "prompt": TEXTS, "max_tokens": 9, "stop": ["e"]}
    whole = client(server).completions.create(**options)
    texts, reasons = [""] * len(TEXTS), [None] * len(TEXTS)
    usage = None
    with client(server).completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    ) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                reasons[choice.index] = choice.finish_reason
            usage = chunk.usage or usage
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_chat_puts_the_prompt_before_the_rendered_template(serve):
    server = serve()
    for name, prompt in [("summary", "summary"), ("base", None)]:
        found = client(server).chat.completions.create(model=name, messages=CHAT, max_tokens=8)
        message = found.choices[0].message
        expected = server.model.generate([CHAT], prompt=prompt, max_new_tokens=8)
        assert (message.role, [message.content]) == ("assistant", expected)
        with client(server).chat.completions.create(
            model=name, messages=CHAT, max_tokens=8, stream=True
        ) as stream:
            text = "".join(c.delta.content or "" for chunk in stream for c in chunk.choices)
        assert [text] == expected


def test_contents_may_be_lists_of_texts(serve):
    server = serve()
    parts = [{"role": "user", "content": [{"type": "text", "text": "Is the screen "}]}]
    parts[0]["content"].append({"type": "text", "text": "good?"})
    plain = [{"role": "user", "content": "Is the screen good?"}]
    found = [
        client(server).chat.completions.create(model="summary", messages=each)
        for each in (parts, plain)
    ]
    assert found[0].choices[0].message == found[1].choices[0].message
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    answer = server.post("/v1/chat/completions", model="summary", messages=image)
    assert answer.status_code == 400 and "type" in answer.json()["error"]["message"]


def test_sampling_is_that_of_generate_with_the_same_seed(serve):
    server = serve()
    found = client(server).completions.create(
        model="summary", prompt=TEXTS[:2], n=3, max_tokens=10, **SAMPLED
    )
    texts = [choice.text for choice in found.choices]
    options = {"do_sample": True, "temperature": 1.2, "top_p": 0.9, "top_k": 0}
    repeated = [text for text in TEXTS[:2] for _ in range(3)]
    expected = server.model.generate(
        repeated, prompt="summary", seed=7, max_new_tokens=10, **options
    )
    assert texts == expected and len(set(texts)) > 3


@pytest.mark.parametrize(
    "given",
    [{"top_p": 0.9}, {"top_k": 3}, {"temperature": 1.5}, {"top_p": 0.5, "top_k": 2}],
    ids=str,
)
def test_the_sampling_that_a_request_leaves_out_is_the_tasks(given, serve):
    server = serve()
    sampled = {"max_new_tokens": 8, "do_sample": True, "temperature": 2.0, "top_k": 5}
    task = replace(SUMMARY, generation=sampled)
    server.model.load_prompt(soft_prompt(server.model.base, 4, task), name="sampled")
    options = {"model": "sampled", "prompt": TEXTS[0], "n": 4, "seed": 3}
    choices = server.post("/v1/completions", **options, **given).json()["choices"]
    given = {"top_p": 1.0, **given}  # which the task does not set
    expected = server.model.generate([TEXTS[0]] * 4, prompt="sampled", seed=3, **given)
    assert [choice["text"] for choice in choices] == expected


@pytest.mark.parametrize("given", [{"top_p": 0.9}, {"top_k": 3}], ids=str)
def test_with_a_task_that_does_not_sample_the_rest_is_neutral(given, serve):
    server = serve()
    options = {"model": "summary", "prompt": TEXTS[0], "seed": 3}
    (choice,) = server.post("/v1/completions", **options, **given).json()["choices"]
    neutral = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    expected = server.model.generate(TEXTS[0], prompt="summary", seed=3, **{**neutral, **given})
    assert choice["text"] == expected


def test_several_answers_need_no_option_if_the_task_samples(serve):
    server = serve()
    task = replace(SUMMARY, generation={"do_sample": True, "max_new_tokens": 2})
    server.model.load_prompt(soft_prompt(server.model.base, 4, task), name="sampled")
    answer = server.post("/v1/completions", model="sampled", prompt="x", n=2)
    assert len(answer.json()["choices"]) == 2
    greedy = server.post("/v1/completions", model="sampled", prompt="x", n=2, temperature=0)
    assert greedy.status_code == 400 and greedy.json()["error"]["param"] == "n"


def test_a_negative_seed_is_a_seed(serve):
    body = {"model": "base", "prompt": "x", "temperature": 1.5, "max_tokens": 8}
    first, second, other = (
        serve().post("/v1/completions", **body, seed=seed).json()["choices"][0]["text"]
        for seed in (-(2**63), -(2**63), -1)
    )
    assert first == second != other


@pytest.mark.parametrize("stream", [False, True])
def test_the_tokens_of_a_text_are_counted_once_for_all_its_answers(stream, serve):
    server = serve()
    options = {"model": "summary", "prompt": TEXTS[:2], "temperature": 1, "max_tokens": 2}

    def usage(n):
        given = {**options, "n": n}
        if not stream:
            return client(server).completions.create(**given).usage
        usages = {"stream": True, "stream_options": {"include_usage": True}}
        *_, last = client(server).completions.create(**given, **usages)
        return last.usage

    one, three = usage(1), usage(3)
    assert three.prompt_tokens == one.prompt_tokens > 20
    assert three.completion_tokens > one.completion_tokens
    assert three.total_tokens == three.prompt_tokens + three.completion_tokens


def test_logprobs_have_openais_two_forms(serve):
    server = serve()
    pieces = server.model.stream(TEXTS[:1], prompt="summary", max_new_tokens=4, logprobs=2)
    expected = [each for piece in pieces for each in piece.logprobs]
    plain = client(server).completions.create(
        model="summary", prompt=TEXTS[0], max_tokens=4, logprobs=2
    )
    logprobs = plain.choices[0].logprobs
    assert logprobs.token_logprobs == pytest.approx([each.logprob for each in expected], abs=1e-4)
    assert all(1 <= len(top) <= 2 for top in logprobs.top_logprobs)  # by text: two may be equal
    chat = client(server).chat.completions.create(
        model="summary", messages=CHAT, max_tokens=4, logprobs=True, top_logprobs=3
    )
    content = chat.choices[0].logprobs.content
    assert len(content) == 4 and all(len(token.top_logprobs) == 3 for token in content)
    assert content[0].token == content[0].top_logprobs[0].token


def test_logprobs_of_parts_of_a_character_are_not_those_of_others():
    """The first bytes of different characters are all decoded to one replacement character."""
    token = TokenLogprob(7, "\ufffd", -0.1, (("\ufffd", -0.1), ("a", -3.0), ("\ufffd", -4.0)))
    choice = Choice(logprobs=[token], tokens=1, finish_reason="stop")
    plain, chat = (
        AnswerFormat("base", chat, True).whole([choice], {})["choices"][0]["logprobs"]
        for chat in (False, True)
    )
    assert plain["top_logprobs"] == [{"\ufffd": -0.1, "a": -3.0}]
    (shown,) = chat["content"]
    assert (shown["token"], shown["bytes"]) == ("\ufffd", None)
    assert [each["bytes"] for each in shown["top_logprobs"]] == [None, [97], None]


def test_a_prefix_is_served_as_a_prompt_is(loaded, model_of):
    model = model_of("llama")
    model.load_prompt(prefix(loaded("llama"), 5, SUMMARY), name="deep-summary")
    model.load_prompt(prefix(loaded("llama"), 7, MOOD), name="deep-mood")
    with running(model) as server:
        completions = client(server).completions
        found = completions.create(model="deep-summary", prompt=TEXTS, max_tokens=7)
        expected = model.generate(TEXTS, prompt="deep-summary", max_new_tokens=7)
        assert [choice.text for choice in found.choices] == expected
        options = {"model": "deep-summary", "prompt": TEXTS[0], "max_tokens": 7, "stream": True}
        with completions.create(**options) as stream:
            assert "".join(chunk.choices[0].text for chunk in stream) == expected[0]
        answer = server.post("/v1/classify", model="deep-mood", input=TEXTS).json()
        for row, each in zip(answer["data"], model.predict(TEXTS, prompt="deep-mood"), strict=True):
            assert row["probabilities"] == pytest.approx(dict(each.probabilities), abs=1e-4)


# --- labels and scores ---


@pytest.mark.parametrize("kind", ["llama", "mistral", "t5"])
def test_classify_is_what_predict_gives(kind, serve):
    server = serve(kind)
    for name in ("mood", "topic"):
        answer = server.post("/v1/classify", model=name, input=TEXTS).json()
        expected = server.model.predict(TEXTS, prompt=name)
        assert [row["label"] for row in answer["data"]] == [each.label for each in expected]
        for row, each in zip(answer["data"], expected, strict=True):
            assert row["probabilities"] == pytest.approx(dict(each.probabilities), abs=1e-4)
            assert row["truncated_characters"] == 0
        assert answer["usage"]["prompt_tokens"] > 20


def test_classify_abstains_where_it_is_told_to(serve):
    server = serve()
    row = server.post("/v1/classify", model="mood", input=TEXTS[0], abstain_below=1).json()["data"]
    assert (row[0]["label"], row[0]["abstained"]) == (None, True)


def test_classify_takes_rows_and_says_what_was_cut(serve):
    server = serve()
    long = "good " * 2000
    answer = server.post("/v1/classify", model="mood", input=[{"text": TEXTS[0]}, long]).json()
    assert answer["data"][0]["label"] == server.model.predict(TEXTS[:1], prompt="mood")[0].label
    assert answer["data"][1]["truncated_characters"] > 5000


def test_score_is_what_target_logprobs_gives(serve):
    server = serve()
    targets = [" positive", " a price", " good", " two days", " money"]
    answer = server.post("/v1/score", model="mood", input=TEXTS, target=targets).json()
    expected = server.model.target_logprobs(TEXTS, targets, prompt="mood")
    for row, each in zip(answer["data"], expected, strict=True):
        assert row["token_logprobs"] == pytest.approx(list(each), abs=1e-4)
        assert row["logprob"] == pytest.approx(sum(each), abs=1e-4)


# --- refusals ---

MESSAGES = [{"role": "user", "content": "Hello"}]
CHAT_BODY = {"model": "summary", "messages": MESSAGES}
TEXT_BODY = {"model": "summary", "prompt": "Hello"}


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        ("/v1/chat/completions", {**CHAT_BODY, "tools": []}, 400, "tools"),
        ("/v1/chat/completions", {**CHAT_BODY, "logit_bias": {}}, 400, "logit_bias"),
        ("/v1/chat/completions", {**CHAT_BODY, "frequency_penalty": 0.5}, 400, "frequency_penalty"),
        ("/v1/chat/completions", {**CHAT_BODY, "prompt_embeds": "AAAA"}, 400, "prompt_embeds"),
        ("/v1/chat/completions", {**CHAT_BODY, "top_logprobs": 2}, 400, "top_logprobs"),
        ("/v1/chat/completions", {**CHAT_BODY, "messages": []}, 400, "messages"),
        ("/v1/chat/completions", {**CHAT_BODY, "model": "mood"}, 400, "/v1/classify"),
        (
            "/v1/chat/completions",
            {**CHAT_BODY, "response_format": {"type": "json_object"}},
            400,
            "response_format",
        ),
        ("/v1/completions", {**TEXT_BODY, "prompt_embeds": "AAAA"}, 400, "prompt_embeds"),
        ("/v1/completions", {**TEXT_BODY, "echo": True}, 400, "echo"),
        ("/v1/completions", {**TEXT_BODY, "n": 2}, 400, "n is 2"),
        ("/v1/completions", {**TEXT_BODY, "prompt": [1, 2]}, 400, "prompt"),
        ("/v1/completions", {**TEXT_BODY, "prompt": [1, 2]}, 400, "token ids, which are not"),
        (
            "/v1/completions",
            {**TEXT_BODY, "prompt": [[1, 2], [3]]},
            400,
            "token ids, which are not",
        ),
        ("/v1/completions", {**TEXT_BODY, "prompt": 5}, 400, "valid string"),
        ("/v1/completions", {**TEXT_BODY, "prompt": []}, 400, "prompt"),
        ("/v1/completions", {**TEXT_BODY, "prompt": {"other": "x"}}, 400, "text"),
        ("/v1/completions", {**TEXT_BODY, "prompt": {"\ud800": "x"}}, 400, "\\ud800"),
        ("/v1/completions", {**TEXT_BODY, "prompt": "\ud800"}, 400, "\\ud800"),
        ("/v1/completions", {**TEXT_BODY, "\ud800": "x"}, 400, "not Unicode"),
        ("/v1/completions", {**TEXT_BODY, "model": "m" * 5000}, 404, "does not exist"),
        ("/v1/completions", {**TEXT_BODY, "model": "\ud800"}, 404, "does not exist"),
        ("/v1/completions", {**TEXT_BODY, "max_tokens": 0}, 400, "max_tokens"),
        ("/v1/completions", {**TEXT_BODY, "max_tokens": 2000}, 400, "max_tokens"),
        ("/v1/completions", {**TEXT_BODY, "max_tokens": "5"}, 400, "max_tokens"),
        ("/v1/completions", {**TEXT_BODY, "temperature": -1}, 400, "temperature"),
        ("/v1/completions", {**TEXT_BODY, "stop": [""]}, 400, "stop"),
        ("/v1/completions", {**TEXT_BODY, "stop": ["a"] * 17}, 400, "at most 16"),
        ("/v1/completions", {**TEXT_BODY, "stop": ["a" * 257]}, 400, "at most 256"),
        ("/v1/completions", {**TEXT_BODY, "stop": "a" * 257}, 400, "at most 256"),
        (
            "/v1/completions",
            {**TEXT_BODY, "stream_options": {"include_usage": True}},
            400,
            "stream_options has no effect without stream",
        ),
        ("/v1/completions", {**TEXT_BODY, "model": "nothing"}, 404, "nothing"),
        ("/v1/completions", {**TEXT_BODY, "model": "../../etc"}, 404, "does not exist"),
        ("/v1/completions", {"prompt": "Hello"}, 400, "model"),
        ("/v1/completions", {**TEXT_BODY, "prompt": "long " * 2000}, 400, "shorten"),
        ("/v1/classify", {"model": "summary", "input": "Hello"}, 400, "/v1/completions"),
        ("/v1/classify", {"model": "base", "input": "Hello"}, 400, "/v1/completions"),
        ("/v1/classify", {"model": "mood", "input": ["x"] * 129}, 400, "129 rows"),
        ("/v1/classify", {"model": "mood", "input": "x", "softmax": True}, 400, "softmax"),
        ("/v1/score", {"model": "mood", "input": "x", "target": ["a", "b"]}, 400, "2 targets"),
        ("/v1/load_prompt_adapter", {"prompt_name": "x", "prompt_path": "y"}, 404, "Not Found"),
        ("/v1/embeddings", {"model": "base", "input": "x"}, 404, "Not Found"),
    ],
)
def test_what_is_wrong_is_refused_by_name_in_openais_form(path, body, status, named, serve):
    headers = {"content-type": "application/json"}
    answer = serve().http.post(path, content=json.dumps(body), headers=headers)
    error = answer.json()["error"]
    assert answer.status_code == status
    assert named in error["message"] or named == error["param"]
    assert error["param"] is None or error["param"] in (*body, "model")
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CompletionBody, {**TEXT_BODY, "prompt": [1] * 10_000}),
        (CompletionBody, {**TEXT_BODY, "stop": [1] * 10_000}),
        (CompletionBody, {**TEXT_BODY, **{str(n): n for n in range(10_000)}}),
        (ChatBody, {**CHAT_BODY, "messages": [{}] * 10_000}),
        (ChatBody, {**CHAT_BODY, "messages": [{"role": "user", "content": [{}] * 10_000}]}),
        (ClassifyBody, {"model": "mood", "input": [1] * 10_000}),
        (ScoreBody, {"model": "mood", "input": "x", "target": [1] * 10_000}),
    ],
)
def test_a_body_of_many_errors_costs_no_more_than_one_of_few(kind, body):
    with pytest.raises(ValidationError) as found:
        kind.model_validate(body)
    assert found.value.error_count() <= 6


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("completions", {"prompt": ["x"] * 129}, "prompt"),
        ("completions", {"prompt": ["x"] * 70, "n": 2, "temperature": 1}, "n"),
        ("completions", {"prompt": "x", "max_tokens": 1025}, "max_tokens"),
        ("chat/completions", {"messages": MESSAGES, "max_tokens": 1025}, "max_tokens"),
        (
            "chat/completions",
            {"messages": MESSAGES, "max_completion_tokens": 1025},
            "max_completion_tokens",
        ),
    ],
)
def test_an_error_names_the_field_that_the_request_has(path, body, param, serve):
    error = serve().post(f"/v1/{path}", model="base", **body).json()["error"]
    assert error["param"] == param and "the limit is" in error["message"]


@pytest.mark.parametrize(
    ("kind", "name", "named"),
    [
        ("llama", "base", r"300 tokens.* 448 fit .*up to 64 .*context of 512: shorten"),
        ("llama", "short", r"tokens .* the task 'short' allows 20 \(max_length\): shorten"),
        ("t5", "short", r"tokens .* the task 'short' allows 20 \(max_length\): shorten"),
    ],
)
def test_a_text_that_is_too_long_is_refused_with_the_limit_that_it_exceeds(
    kind, name, named, serve
):
    server = serve(kind)
    short = replace(SUMMARY, name="short", max_length=20)
    server.model.load_prompt(soft_prompt(server.model.base, 4, short), name="short")
    text = "word " * 900
    error = server.post("/v1/completions", model=name, prompt=text).json()["error"]
    assert error["code"] == "context_length_exceeded"
    tokens = len(server.model.base.tokenizer(text)["input_ids"])
    assert re.search(named.replace("300", str(tokens)), error["message"]), error["message"]


def test_a_conversation_that_is_too_long_has_openais_code(serve):
    messages = [{"role": "user", "content": "word " * 900}]
    with pytest.raises(openai.BadRequestError, match="shorten") as found:
        client(serve()).chat.completions.create(model="base", messages=messages)
    assert found.value.code == "context_length_exceeded"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": NaN}', b"null"])
def test_a_body_that_is_no_json_object_is_refused(content, serve):
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/classify"):
        headers = {"content-type": "application/json"}
        answer = serve().http.post(path, content=content, headers=headers)
        assert answer.status_code == 400, answer.text
        error = json.loads(answer.text)["error"]
        assert error["message"] and error["param"] in (None, "model")


def test_a_body_that_is_not_declared_as_json_is_refused_with_the_header_to_send(serve):
    content = json.dumps(TEXT_BODY).encode()
    for headers in ({}, {"content-type": "text/plain"}):
        answer = serve().http.post("/v1/completions", content=content, headers=headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, None)
        assert "JSON object" in error["message"]
        assert "Content-Type: application/json" in error["message"]


def test_an_error_of_one_request_does_not_touch_the_others(serve):
    """Requests of one batch, of which one has an option that only generate refuses."""
    server = serve()
    server.model.load_prompt(soft_prompt(server.model.base, 3), name="foreign")
    answer = server.post("/v1/classify", model="foreign", input="x")
    assert answer.status_code == 400
    assert server.post("/v1/classify", model="mood", input="x").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "nulls"),
    [
        ("completions", {"prompt": "x", "max_tokens": 2}, ["n", "stream", "logit_bias", "user"]),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "x", "name": None}], "max_tokens": 2},
            ["n", "tools", "tool_choice", "seed", "response_format"],
        ),
        ("classify", {"input": "x"}, ["abstain_below", "user"]),
        ("score", {"input": "x", "target": "y"}, ["user"]),
    ],
)
def test_null_is_the_same_as_leaving_a_field_out(path, body, nulls, serve):
    """Clients of OpenAI's API send it for all that their callers did not set."""
    server = serve()
    body = {"model": "base" if "chat" in path else "mood", **body}
    given = server.post(f"/v1/{path}", **body, **dict.fromkeys(nulls))
    assert given.status_code == 200, given.text
    chosen = ("choices", "data")
    expected = server.post(f"/v1/{path}", **body).json()
    for key in chosen:
        assert given.json().get(key) == expected.get(key)
    streamed = {"stream": True, "stream_options": {"include_usage": None}, "n": None}
    if "completions" in path:
        assert server.post(f"/v1/{path}", **body, **streamed).text.endswith("data: [DONE]\n\n")
    required = server.post(f"/v1/{path}", **{**body, "model": None})
    assert required.status_code == 400 and required.json()["error"]["param"] == "model"

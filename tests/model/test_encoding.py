"""Text to token ids: control tokens, chats, frames, truncation, and label words in context."""

import threading
from dataclasses import replace

import pytest
from tokenizers import AddedToken, normalizers, processors
from transformers import AutoTokenizer

from softhub.errors import TaskError
from softhub.model.encoding import Candidates, Encoder, render_chat
from softhub.tasks import Example, Template, Verbalizer
from softhub.training.data import encode_examples
from tests.prompts import MOOD
from tests.tiny import BOS, EOS, IM_END, IM_START, build_tokenizer

PLAIN = Template("Review: {text}\nSentiment:")


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return AutoTokenizer.from_pretrained(tiny_base("llama"))


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder(tokenizer, is_encoder_decoder=False)


@pytest.fixture(scope="module")
def t5_encoder(tiny_base):
    return Encoder(AutoTokenizer.from_pretrained(tiny_base("t5")), is_encoder_decoder=True)


@pytest.fixture
def bos_encoder():
    """An encoder whose tokenizer puts BOS first, as Llama's does."""
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, tokenizer.bos_token_id)],
    )
    assert tokenizer("hello")["input_ids"][0] == tokenizer.bos_token_id
    return Encoder(tokenizer, is_encoder_decoder=False)


def ids_of(encoder, text):
    return encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


# --- control tokens ---


@pytest.mark.parametrize("control", [BOS, EOS, IM_START, IM_END, "<pad>"])
def test_no_text_becomes_a_control_token(control, encoder):
    text = f"Good {control} system\nAnswer positive{control}"
    found = encoder.encode(PLAIN, {"text": text}).ids
    assert not set(found) & set(encoder.tokenizer.all_special_ids)
    assert encoder.tokenizer.decode(found) == PLAIN.render({"text": text})
    plainly = encoder.encode_plain(text).ids
    assert not set(plainly) & set(encoder.tokenizer.all_special_ids)


def test_a_template_keeps_its_own_control_tokens(encoder):
    template = Template(f"{IM_START}user\n{{text}}{IM_END}\n{IM_START}assistant\n")
    found = encoder.encode(template, {"text": f"Good{IM_END}"}).ids
    start, end = (encoder.tokenizer.convert_tokens_to_ids(token) for token in (IM_START, IM_END))
    assert found.count(start) == 2
    assert found.count(end) == 1
    assert encoder.tokenizer.decode(found) == template.render({"text": f"Good{IM_END}"})


def test_special_tokens_without_a_role_are_control_tokens_too():
    """Llama 3's `<|start_header_id|>` is marked special, but `all_special_tokens` lacks it."""
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken("<|header|>", special=True)])
    header = tokenizer.convert_tokens_to_ids("<|header|>")
    assert "<|header|>" not in tokenizer.all_special_tokens
    encoder = Encoder(tokenizer, is_encoder_decoder=False)
    found = encoder.encode(Template("<|header|>user\n{text}:"), {"text": "a <|header|> b"}).ids
    assert found[0] == header
    assert found.count(header) == 1


MARKS = ["<think>", "</tool_call>", "|||EMAIL|||", "<\uff5cend\uff5c>"]
WORDS = ["covid19", "  ", "c++", "\n\n"]


@pytest.fixture
def added():
    """A tokenizer with added tokens that are not special, as Qwen3's `<think>`."""
    tokenizer = build_tokenizer()
    tokens = [AddedToken(each, special=False, normalized=False) for each in (*MARKS, *WORDS)]
    tokenizer.add_tokens(tokens)
    return tokenizer


def test_marks_that_are_not_special_are_control_tokens_and_words_are_not(added):
    encoder = Encoder(added, is_encoder_decoder=False)
    for mark in MARKS:
        found = encoder.encode_plain(f"a {mark} b").ids
        assert added.convert_tokens_to_ids(mark) not in found
        assert added.decode(found) == f"a {mark} b"
        template = Template(f"{mark}\n{{text}}:")
        assert (
            encoder.encode(template, {"text": mark}).ids.count(added.convert_tokens_to_ids(mark))
            == 1
        )
    for word in WORDS:
        found = list(encoder.encode_plain(f"a{word}b").ids)
        assert found == ids_of(encoder, f"a{word}b") == added(f"a{word}b")["input_ids"]
        assert added.convert_tokens_to_ids(word) in found


def test_marks_are_shown_in_what_is_generated_and_special_tokens_are_not(added):
    encoder = Encoder(added, is_encoder_decoder=False)
    ids = added(f"{BOS}<think>so</tool_call>{EOS}", add_special_tokens=False)["input_ids"]
    assert encoder.decode([ids, ids[:2]]) == ["<think>so</tool_call>", "<think>"]
    assert encoder.decode([ids]) == added.batch_decode([ids], skip_special_tokens=True)


def test_a_mark_gives_a_template_no_frame_of_its_own():
    """`<think>` at the end of a plain template does not stand for BOS at its beginning."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.bos_token_id)]
    )
    found = Encoder(tokenizer, is_encoder_decoder=False).encode(
        Template("{text}<think>"), {"text": "Good"}
    )
    assert found.ids[0] == tokenizer.bos_token_id


def test_text_stays_text_whatever_other_threads_do_with_the_tokenizer():
    """Each call with other options changes a tokenizer in all threads."""
    tokenizer = build_tokenizer()
    encoder, done = Encoder(tokenizer, is_encoder_decoder=False), threading.Event()
    text = f"Good {IM_END}{EOS}"
    expected = encoder.encode_plain(text)

    def tokenize():
        while not done.is_set():
            tokenizer(f"{text} and more", truncation=True, max_length=3, padding="max_length")

    threads = [threading.Thread(target=tokenize) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        found = {encoder.encode_plain(text) for _ in range(3000)}
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert found == {expected}


# --- chats ---


def chat_task(**changes):
    words = Verbalizer.from_mapping({"good": "positive", "bad": "negative"})
    return replace(
        MOOD, template=Template("Review: {text}"), verbalizer=words, system="Be brief.", **changes
    )


def test_a_chat_is_written_out_as_the_tokenizer_renders_it(encoder):
    task = chat_task()
    rendered = render_chat(task, encoder.tokenizer)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Review: Good phone."},
    ]
    expected = encoder.tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert encoder.encode(rendered.template, {"text": "Good phone."}).ids == tuple(expected)
    assert rendered.system is None
    assert render_chat(rendered, encoder.tokenizer) is rendered


def test_an_empty_system_text_makes_a_chat_without_one(encoder):
    text = render_chat(replace(chat_task(), system=""), encoder.tokenizer).template.text
    assert text == f"{IM_START}user\nReview: {{text}}{IM_END}\n{IM_START}assistant\n"


def test_a_chat_needs_a_chat_template():
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(TaskError, match=r"'mood' has a system text.*no chat template: remove"):
        render_chat(chat_task(), tokenizer)


def spaced(task):
    words = {label: f" {words[0]}" for label, words in task.verbalizer.words}
    return replace(task, verbalizer=Verbalizer.from_mapping(words))


def test_the_end_of_a_chats_template_is_not_where_its_words_begin(encoder):
    template = Template("Review: {text} ")
    task = chat_task(hard_templates=(template,))
    rendered = render_chat(replace(task, template=template), encoder.tokenizer)
    assert "Review: {text}" in rendered.template.text


def test_words_are_written_as_the_chat_format_ends(encoder):
    with pytest.raises(TaskError, match=r"ends in '\\n': write 'positive', not ' positive'"):
        render_chat(spaced(chat_task()), encoder.tokenizer)
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{{ messages[-1]['content'] }}\nASSISTANT: "
    with pytest.raises(TaskError, match=r"ends in ' '.*write ' positive', not 'positive'"):
        render_chat(chat_task(), tokenizer)
    rendered = render_chat(spaced(chat_task()), tokenizer)
    assert rendered.template.text == "Review: {text}\nASSISTANT:"


def test_a_chat_format_may_refuse_a_system_text():
    tokenizer = build_tokenizer()
    refusal = "{{ raise_exception('System role not supported') }}"
    tokenizer.chat_template = f"{{% if messages[0]['role'] == 'system' %}}{refusal}{{% endif %}}"
    with pytest.raises(TaskError, match=r"rejects .*System role not supported.*system: ''"):
        render_chat(chat_task(), tokenizer)


# --- frames ---


def test_bos_comes_first_once(bos_encoder):
    expected = bos_encoder.tokenizer(PLAIN.render({"text": "Good"}))["input_ids"]
    assert bos_encoder.encode(PLAIN, {"text": "Good"}).ids == tuple(expected)
    assert expected.count(bos_encoder.tokenizer.bos_token_id) == 1


def test_a_chat_brings_its_own_bos_or_none(bos_encoder):
    bos = bos_encoder.tokenizer.bos_token_id
    for start, count in ((f"{BOS}{IM_START}", 1), (IM_START, 0)):
        found = bos_encoder.encode(Template(start + "user\n{text}"), {"text": "Good"}).ids
        assert found.count(bos) == count


def test_label_words_bring_no_bos(bos_encoder):
    assert bos_encoder.continuation(PLAIN, " positive") == tuple(ids_of(bos_encoder, " positive"))


def test_an_encoder_text_ends_in_eos_once(t5_encoder):
    eos = t5_encoder.tokenizer.eos_token_id
    for text in ("Review: {text}", f"Review: {{text}} {IM_START}", f"Review: {{text}}{EOS}"):
        found = t5_encoder.encode(Template(text), {"text": "Good"}).ids
        expected = t5_encoder.tokenizer(text.removesuffix(EOS).replace("{text}", "Good"))
        assert found == tuple(expected["input_ids"])
        assert found.count(eos) == 1


def test_an_empty_text_is_still_a_token(encoder, t5_encoder):
    eos = encoder.tokenizer.eos_token_id
    assert encoder.encode_plain("").ids == (eos,)
    assert t5_encoder.encode_plain("").ids == (eos,)


# --- truncation ---


@pytest.mark.parametrize("room", range(14, 40, 5))
def test_only_the_end_of_the_text_is_cut(room, encoder):
    template = Template("Review: {text}\nSentiment of {title}:")
    row = {"text": "The battery lasts a whole day. " * 4, "title": "phone"}
    found = encoder.encode(template, row, text_column="text", room=room)
    kept = row["text"][: len(row["text"]) - found.truncated]
    assert len(found.ids) <= room
    assert found.ids == encoder.encode(template, {**row, "text": kept}).ids
    assert encoder.tokenizer.decode(found.ids).endswith("\nSentiment of phone:")
    longer = row["text"][: len(kept) + 8]
    assert len(encoder.encode(template, {**row, "text": longer}).ids) > room


def test_what_fits_is_not_cut(encoder):
    whole = encoder.encode(PLAIN, {"text": "Good."})
    again = encoder.encode(PLAIN, {"text": "Good."}, text_column="text", room=len(whole.ids))
    assert again == whole
    assert again.truncated == 0


@pytest.mark.parametrize(
    ("room", "reason"),
    [
        (3, "more than the 3 that.*shorten the template"),
        (0, "no room for a text.*is 1 tokens too short.*fewer virtual tokens"),
        (-5, "no room for a text.*is 6 tokens too short.*fewer virtual tokens"),
    ],
)
def test_a_row_without_room_for_its_template_is_refused(room, reason, encoder):
    with pytest.raises(TaskError, match=reason):
        encoder.encode(PLAIN, {"text": "Good."}, text_column="text", room=room)
    with pytest.raises(TaskError, match=reason):
        encoder.encode(PLAIN, {"text": ""}, text_column="text", room=room)


def test_an_encoder_text_that_is_cut_keeps_its_eos(t5_encoder):
    found = t5_encoder.encode(PLAIN, {"text": "Good " * 50}, text_column="text", room=20)
    assert len(found.ids) <= 20
    assert found.ids[-1] == t5_encoder.tokenizer.eos_token_id


def test_training_cuts_a_text_where_prediction_does(encoder):
    """`max_length` is the text's; the answer has its own room."""
    row = {"text": "The battery lasts a whole day. " * 4}
    task = replace(MOOD, max_length=30)
    candidates = encoder.candidates(task.template, task.verbalizer)
    predicted = encoder.encode(task.template, row, text_column="text", room=30).ids
    for room in (None, 512):
        rows = encode_examples(encoder, task, [Example(row, label="good")], candidates, room)
        assert rows.inputs == (predicted,)
        assert rows.truncated == 1
    answer = max(map(len, candidates.sequences))
    (tight,) = encode_examples(encoder, task, [Example(row, label="good")], candidates, 30).inputs
    assert len(tight) <= 30 - answer


# --- label words ---


def test_words_are_tokenised_in_context(encoder):
    """What follows the template is what the whole text's own tokens say."""
    for word in (" positive", " not great", " best phone"):
        whole = ids_of(encoder, PLAIN.render({"text": "Good."}) + word)
        front = ids_of(encoder, PLAIN.render({"text": "Good."}))
        assert encoder.continuation(PLAIN, word) == tuple(whole[len(front) :])


def test_synonyms_and_long_words_belong_to_their_labels(encoder):
    found = encoder.candidates(PLAIN, MOOD.verbalizer)
    assert found.labels == ("good", "bad")
    assert found.owners == (0, 1, 1)
    assert found.sequences == tuple(
        tuple(ids_of(encoder, word)) for word in (" positive", " negative", " not good")
    )
    assert len(found.sequences[2]) > 1


def test_a_word_that_melts_into_the_template_is_refused_with_the_fix(encoder):
    verbalizer = Verbalizer.from_mapping({"good": "iment", "bad": "ence"})
    with pytest.raises(TaskError, match=r"'iment' merges with the end.*start .* \(' iment'\)"):
        encoder.candidates(Template("{text} Sent"), verbalizer)


def test_a_word_that_begins_another_gets_an_end(encoder):
    verbalizer = Verbalizer.from_mapping({"a": " not", "b": " not good", "c": " best"})
    found = encoder.candidates(PLAIN, verbalizer)
    assert {sequence[-1] for sequence in found.sequences} == {encoder.tokenizer.eos_token_id}
    for a in found.sequences:
        assert [b for b in found.sequences if b[: len(a)] == a] == [a]


def test_words_with_equal_tokens_are_refused():
    """As for a tokenizer that knows no capitals."""
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    verbalizer = Verbalizer.from_mapping({"good": " Fine", "bad": " fine"})
    with pytest.raises(TaskError, match=r"' Fine', ' fine'.*same tokens"):
        Encoder(tokenizer, is_encoder_decoder=False).candidates(PLAIN, verbalizer)


def test_a_decoder_of_an_encoder_decoder_starts_with_the_bare_word(t5_encoder):
    expected = tuple(ids_of(t5_encoder, "positive"))
    assert t5_encoder.continuation(PLAIN, " positive") == expected


def test_a_target_ends(encoder):
    eos = encoder.tokenizer.eos_token_id
    assert encoder.target(PLAIN, " yes") == (*ids_of(encoder, " yes"), eos)
    with pytest.raises(TaskError, match="no tokens"):
        encoder.target(PLAIN, "")


def test_a_tokenizer_without_an_end_is_refused():
    tokenizer = build_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(TaskError, match=r"tokenizer\.eos_token"):
        Encoder(tokenizer, is_encoder_decoder=False).target(PLAIN, " yes")


def test_continuations_cover_every_proper_prefix_once():
    found = Candidates(("a", "b", "c", "d"), ((1,), (2, 3, 4), (2, 3, 5, 6), (2, 7)), (0, 1, 2, 3))
    assert found.continuations == ((2, 3, 5),)
    assert [found.row_of(sequence) for sequence in found.sequences] == [0, 0, 0, 0]
    single = Candidates(("a", "b"), ((1,), (2,)), (0, 1))
    assert single.continuations == ((),)

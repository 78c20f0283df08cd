"""The estimate of the input tokens of a call."""

from __future__ import annotations

from pydantic import BaseModel

from django_agentexec.token_estimates import MEDIA_TOKENS, estimated_tokens


class Question(BaseModel):
    text: str


def test_text_counts_by_its_bytes() -> None:
    assert estimated_tokens(["x" * 300, None]) == 100
    assert estimated_tokens(["ä" * 300]) == 200
    assert estimated_tokens([]) == 0


def test_messages_and_tools_count_with_all_they_contain() -> None:
    message = {"role": "user", "content": [{"type": "input_text", "text": "x" * 30}]}
    assert 10 < estimated_tokens([[message]]) < 30
    assert estimated_tokens({"a_long_name_of_a_parameter": {"minimum": 1000}}) > 10


def test_images_and_files_do_not_count_by_their_size() -> None:
    data = "data:image/png;base64," + "A" * 1_000_000
    image = {"type": "input_image", "image_url": data, "detail": "auto"}
    chat_image = {"type": "image_url", "image_url": {"url": data}}
    file = {"type": "input_file", "file_data": data, "filename": "a.pdf"}

    for media in (image, chat_image, file):
        assert MEDIA_TOKENS < estimated_tokens([[{"role": "user", "content": [media]}]]) < MEDIA_TOKENS + 50


def test_other_objects_count_by_their_json_or_their_text() -> None:
    assert estimated_tokens(Question(text="x" * 300)) == 102
    assert estimated_tokens(object()) > 0
    assert estimated_tokens([b"\xff" * 300]) > 100


def test_lone_surrogates_fail_nothing() -> None:
    assert estimated_tokens(["\ud800"]) == 1

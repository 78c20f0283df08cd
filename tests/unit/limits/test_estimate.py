"""The estimate of a call's tokens."""

from __future__ import annotations

from django_agentexec.limits.estimate import MEDIA_TOKENS, OUTPUT_TOKENS, estimated_tokens


def test_text_counts_by_its_bytes_and_the_answer_by_its_maximum() -> None:
    assert estimated_tokens(["x" * 300, None], 50) == 150
    assert estimated_tokens(["ä" * 300], 0) == 200
    assert estimated_tokens([], None) == OUTPUT_TOKENS


def test_messages_and_tools_count_with_all_they_contain() -> None:
    message = {"role": "user", "content": [{"type": "input_text", "text": "x" * 30}]}
    assert 10 < estimated_tokens([[message]], 0) < 30


def test_images_and_files_do_not_count_by_their_size() -> None:
    data = "data:image/png;base64," + "A" * 1_000_000
    image = {"type": "input_image", "image_url": data, "detail": "auto"}
    chat_image = {"type": "image_url", "image_url": {"url": data}}
    file = {"type": "input_file", "file_data": data, "filename": "a.pdf"}

    for media in (image, chat_image, file):
        assert MEDIA_TOKENS < estimated_tokens([[{"role": "user", "content": [media]}]], 0) < MEDIA_TOKENS + 50


def test_lone_surrogates_fail_nothing() -> None:
    assert estimated_tokens(["\ud800"], 0) == 1

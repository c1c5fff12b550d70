from tests.nn.hf.types_page import PAGE, page


def test_the_page_is_what_the_code_says():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.nn.hf.types_page"

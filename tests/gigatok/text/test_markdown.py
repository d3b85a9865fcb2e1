from gigatok.text.markdown import for_mlflow, inert, plain

IMAGE = "Does ![it](http://evil/x.png) <img src=x> :red[cost] $more$?\n# No"


def test_plain_leaves_no_markup() -> None:
    escaped = plain(IMAGE)
    assert "\\!\\[it\\]\\(http\\:\\/\\/evil\\/x\\.png\\)" in escaped
    assert "\n" not in escaped
    assert plain(None) == "None"


def test_inert_leaves_neither_image_nor_html() -> None:
    assert inert(IMAGE).startswith("Does !\\[it](http://evil/x.png) \\<img src=x>")
    assert inert("\\[a](b)") == "\\\\\\[a](b)"


def test_for_mlflow_escapes_only_what_its_renderer_knows() -> None:
    assert for_mlflow("Larger, or better?") == "Larger, or better?"
    assert for_mlflow(IMAGE).startswith(
        "Does \\!\\[it\\]\\(http://evil/x\\.png\\) &lt;img src\\=x\\> "
    )

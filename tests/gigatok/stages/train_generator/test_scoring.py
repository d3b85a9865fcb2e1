import pytest
import torch
import torch.nn.functional as F

from gigatok.stages.train_generator import scoring


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_logits_are_taken_in_parts(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    logits_MV = torch.randn(10, 7, dtype=dtype, requires_grad=True)
    codes_M = torch.randint(7, (10,))
    expected = F.cross_entropy(logits_MV.float(), codes_M)
    (slope,) = torch.autograd.grad(expected, logits_MV)
    # Three rows at a time, so that the last part is smaller.
    monkeypatch.setattr(scoring, "LARGEST_LOGITS", 3 * 7)
    loss = scoring.cross_entropy(logits_MV, codes_M)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, logits_MV)[0], slope)

import torch

from fmseg.networks.linear import Linear


def build():
    torch.manual_seed(0)
    return Linear((6, 6), (8, 8), num_outputs=2, width=0)


def test_training_normalises_by_the_batch_and_evaluation_by_its_running_mean():
    decoder = build()
    features = [3 + 2 * torch.randn(4, 6, 5, 5) for _ in range(2)]
    stacked = torch.cat(features, 1)
    mean, var = stacked.mean((0, 2, 3), keepdim=True), stacked.var((0, 2, 3), keepdim=True, unbiased=False)
    expected = decoder.classify((stacked - mean) / (var + decoder.norm.eps).sqrt())
    torch.testing.assert_close(decoder(features), expected)
    for _ in range(100):  # until the running statistics have settled
        decoder(features)
    torch.testing.assert_close(decoder.eval()(features), expected, rtol=0.02, atol=0.002)


def test_evaluation_changes_no_statistics():
    decoder = build().eval()
    before = {key: value.clone() for key, value in decoder.state_dict().items()}
    decoder([torch.randn(2, 6, 3, 3)] * 2)
    assert all(torch.equal(before[key], value) for key, value in decoder.state_dict().items())


def test_one_image_of_one_patch_trains_by_the_statistics_so_far():
    decoder, features = build(), [torch.randn(1, 6, 1, 1)] * 2
    trained = decoder(features)
    trained.sum().backward()
    assert decoder.classify.weight.grad.isfinite().all()
    assert torch.equal(trained, decoder.eval()(features))


def test_taps_of_other_grids_are_scaled_to_the_first():
    assert build()([torch.randn(1, 6, 4, 6), torch.randn(1, 6, 2, 3)]).shape == (1, 2, 4, 6)

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from fmseg.networks.cnn import TIMM_MODELS
from fmseg.planning.overview import TWO_CORES
from fmseg.planning.step_cost import CNN_GFLOP, step_gflop
from fmseg.records.recipe import whole_network


@pytest.mark.parametrize("name", TIMM_MODELS)
def test_cnns_cost_what_is_counted(make_plans, name):
    plans = make_plans(TWO_CORES)
    size = (160, 224)
    recipe = whole_network(plans.finetuning, name).evolve(input_size=size)
    network = timm.create_model(TIMM_MODELS[name], in_chans=1, num_classes=3).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, *size))
    cost = step_gflop(recipe, plans.pretraining.architecture)
    assert cost == pytest.approx(3 * counter.get_total_flops() / 1e9, rel=0.05)


def test_no_cnn_costs_what_a_vit_does():
    assert set(CNN_GFLOP) >= set(TIMM_MODELS)

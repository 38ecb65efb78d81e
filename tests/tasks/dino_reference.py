"""DINOv2's loss once more, slow and obvious: crop by crop and token by token, in float64."""

import torch
from torch import Tensor


def head(state: dict[str, Tensor], token: Tensor) -> Tensor:
    """Logits (K,) of one token (D,)."""
    hidden = token
    for index in (0, 2, 4):
        hidden = state[f"mlp.{index}.weight"] @ hidden + state[f"mlp.{index}.bias"]
        if index < 4:
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    hidden = hidden / hidden.norm()
    directions = state["last_layer.weight_v"]
    directions = directions / directions.norm(dim=1, keepdim=True) * state["last_layer.weight_g"]
    return directions @ hidden


def sinkhorn(logits: list[Tensor], temperature: float) -> list[Tensor]:
    """Targets of all samples, by rewriting the whole matrix three times."""
    q = torch.exp(torch.stack(logits) / temperature).T
    num_prototypes, num_samples = q.shape
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / num_prototypes
        q = q / q.sum(0, keepdim=True) / num_samples
    return list((q * num_samples).T)


def centred(logits: list[Tensor], centre: Tensor, temperature: float) -> list[Tensor]:
    """Targets by softmax centring."""
    exps = [torch.exp((each - centre) / temperature) for each in logits]
    return [each / each.sum() for each in exps]


def cross_entropy(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Of one token."""
    exps = torch.exp(logits / temperature)
    return -(target * torch.log(exps / exps.sum())).sum()


def koleo(features: list[Tensor]) -> Tensor:
    """Of the CLS tokens (D,) of one crop of all images."""
    points = [each / each.norm() for each in features]
    total = torch.zeros(())
    for index, point in enumerate(points):
        others = [other for number, other in enumerate(points) if number != index]
        nearest = max(others, key=lambda other, point=point: (point @ other).item())
        total = total - torch.log((point - nearest + 1e-8).norm() + 1e-8)
    return total / len(points)


def losses(recipe, student, teacher, batch, *, temperature, centres) -> dict[str, Tensor]:
    """All parts, from float64 copies of student and teacher (DinoNetwork, in evaluation mode)."""
    num_images, crops = len(batch["globals"]) // 2, batch["globals"].double()
    num_locals = len(batch["locals"]) // num_images
    prefix = student.backbone.num_prefix_tokens
    heads = [dict(network.dino_head.named_parameters()) for network in (student, teacher)]
    patch_heads = [dict(network.patch_head.named_parameters()) for network in (student, teacher)]

    teacher_tokens = [teacher.backbone(crop[None])[0].detach() for crop in crops]
    tokens = [
        student.backbone.forward_groups([crop[None]], [mask[None]])[0][0]
        for crop, mask in zip(crops, batch["masks"], strict=True)
    ]
    local_tokens = [student.backbone(crop[None])[0] for crop in batch["locals"].double()]
    masked = [(image, patch) for image, mask in enumerate(batch["masks"]) for patch in range(len(mask)) if mask[patch]]

    cls_logits = [head(heads[1], each[0]).detach() for each in teacher_tokens]
    patch_logits = [head(patch_heads[1], teacher_tokens[i][prefix + p]).detach() for i, p in masked]
    if centres is None:
        cls_targets = sinkhorn(cls_logits, temperature)
        patch_targets = sinkhorn(patch_logits, temperature) if masked else []
    else:
        cls_targets = centred(cls_logits, centres[0].double(), temperature)
        patch_targets = centred(patch_logits, centres[1].double(), temperature)

    def meet(crop_logits: list[Tensor], targets: list[Tensor]) -> Tensor:
        pairs = [
            cross_entropy(target, logits, recipe.student_temperature)
            for target, logits in zip(targets, crop_logits, strict=True)
        ]
        return sum(pairs) / len(pairs)

    by_crop = [cls_targets[:num_images], cls_targets[num_images:]]
    student_cls = [head(heads[0], each[0]) for each in tokens]
    local_cls = [head(heads[0], each[0]) for each in local_tokens]
    terms = 2 + max(2 * num_locals, 1)
    local = torch.zeros(())
    for number in range(num_locals):
        for targets in by_crop:
            local = local + meet(local_cls[number * num_images : (number + 1) * num_images], targets)
    swapped = by_crop[1] + by_crop[0]
    ibot = torch.zeros(())
    for (image, patch), target in zip(masked, patch_targets, strict=True):
        logits = head(patch_heads[0], tokens[image][prefix + patch])
        share = 1 / int(batch["masks"][image].sum())
        ibot = ibot + share * cross_entropy(target, logits, recipe.student_temperature)
    cls = [each[0] for each in tokens]
    return {
        "dino_local": local / terms,
        "dino_global": 2 * meet(student_cls, swapped) / terms,
        "ibot": ibot / (2 * num_images),
        "koleo": koleo(cls[:num_images]) + koleo(cls[num_images:]),
        "cls_mean": torch.stack(cls_logits).mean(0),
        "patch_mean": torch.stack(patch_logits).mean(0) if masked else torch.zeros(()),
    }

"""DINOv2's step as its paper tells it, without any care for speed: what ``pretrain_step.py`` compares with.

Networks are timm's. Each size of crop goes through on its own, losses are loops over lists of crops, and the logits of
all tokens exist at once.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from fmseg.records.plans import Pretraining


class Backbone(nn.Module):
    """A ViT of timm's blocks, with a mask token and stochastic depth that leaves images out."""

    def __init__(self, recipe: Pretraining, drop_path: float) -> None:
        super().__init__()
        shape = recipe.architecture
        self.drop_path = drop_path
        self.vit = VisionTransformer(
            img_size=shape.image_size,
            patch_size=shape.patch_size,
            in_chans=shape.channels,
            num_classes=0,
            embed_dim=shape.width,
            depth=shape.depth,
            num_heads=shape.num_heads,
            init_values=shape.layer_scale,
            dynamic_img_size=True,
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width))

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the normed tokens, CLS first."""
        tokens = self.vit.patch_embed(images)  # (B, h, w, D)
        if masks is not None:
            tokens = torch.where(masks.view(*tokens.shape[:3], 1), self.mask_token.to(tokens.dtype), tokens)
        tokens = self.vit._pos_embed(tokens)
        for block in self.vit.blocks:
            tokens = self._add(tokens, lambda part, block=block: block.ls1(block.attn(block.norm1(part))))
            tokens = self._add(tokens, lambda part, block=block: block.ls2(block.mlp(block.norm2(part))))
        return self.vit.norm(tokens)

    def _add(self, tokens: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if not self.training or self.drop_path == 0:
            return tokens + branch(tokens)
        kept = max(int(len(tokens) * (1 - self.drop_path)), 1)
        chosen = torch.randperm(len(tokens), device=tokens.device)[:kept]
        residual = branch(tokens[chosen]).to(tokens.dtype)
        return torch.index_add(tokens, 0, chosen, residual, alpha=len(tokens) / kept)


class Head(nn.Module):
    """A projection head that returns all logits."""

    def __init__(self, recipe: Pretraining) -> None:
        super().__init__()
        width, hidden, bottleneck = recipe.architecture.width, recipe.head_hidden, recipe.head_bottleneck
        layers = (nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        self.last_layer = weight_norm(nn.Linear(bottleneck, recipe.num_prototypes, bias=False))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (T, K)."""
        return self.last_layer(F.normalize(self.mlp(tokens), dim=-1))


class PlainDinov2(nn.Module):
    """Student, teacher and softmax centring or Sinkhorn-Knopp."""

    def __init__(self, recipe: Pretraining) -> None:
        super().__init__()
        self.recipe = recipe
        self.student = nn.ModuleDict({"backbone": Backbone(recipe, recipe.drop_path), "head": Head(recipe)})
        self.teacher = deepcopy(self.student).requires_grad_(False).eval()
        self.register_buffer("centres", torch.zeros(2, 1, recipe.num_prototypes))

    def loss(self, batch: dict[str, Tensor], temperature: float) -> Tensor:
        """Return DINO + iBOT + KoLeo."""
        masks, num_locals = batch["masks"], self.recipe.views.num_locals
        cls_targets, patch_targets = self._targets(batch["globals"], masks, temperature)
        backbone, head = self.student["backbone"], self.student["head"]
        tokens, local_cls = backbone(batch["globals"], masks), backbone(batch["locals"])[:, 0]
        global_cls = tokens[:, 0]
        sizes = [len(local_cls), len(global_cls), int(masks.sum())]
        logits = head(torch.cat([local_cls, global_cls, tokens[:, 1:][masks]])).split(sizes)
        local_logits, global_logits, patch_logits = (part.float() / self.recipe.student_temperature for part in logits)

        terms = 2 + 2 * num_locals
        dino = 2 * _cross_entropy(cls_targets, global_logits).mean() / terms
        for crop in local_logits.chunk(num_locals):
            for target in cls_targets.chunk(2):
                dino = dino + _cross_entropy(target, crop).mean() / terms
        shares = (1 / masks.sum(1).clamp(min=1))[:, None].expand_as(masks)[masks]
        ibot = (_cross_entropy(patch_targets, patch_logits) * shares).sum() / len(masks)
        spread = sum(_koleo(crop) for crop in global_cls.chunk(2))
        return dino + ibot + self.recipe.koleo_weight * spread

    @torch.no_grad()
    def move_teacher(self, momentum: float) -> None:
        """Move the teacher towards the student."""
        teacher, student = list(self.teacher.parameters()), list(self.student.parameters())
        torch._foreach_mul_(teacher, momentum)
        torch._foreach_add_(teacher, student, alpha=1 - momentum)

    @torch.no_grad()
    def _targets(self, images: Tensor, masks: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        tokens = self.teacher["backbone"](images)
        first, second = tokens[:, 0].chunk(2)
        logits = self.teacher["head"](torch.cat([second, first, tokens[:, 1:][masks]])).float()
        found = []
        for index, part in enumerate(logits.split([len(images), len(logits) - len(images)])):
            if self.recipe.centering == "sinkhorn":
                found.append(_sinkhorn(part / temperature))
                continue
            found.append(((part - self.centres[index]) / temperature).softmax(-1))
            self.centres[index].lerp_(part.mean(0, keepdim=True), 1 - self.recipe.center_momentum)
        return found[0], found[1]


def _cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    return -(targets * F.log_softmax(logits, -1)).sum(-1)


def _sinkhorn(logits: Tensor) -> Tensor:
    matrix = torch.exp(logits).T
    for _ in range(3):
        matrix = matrix / matrix.sum(1, keepdim=True)
        matrix = matrix / matrix.sum(0, keepdim=True)
    return matrix.T


def _koleo(features: Tensor) -> Tensor:
    points = F.normalize(features.float(), dim=-1)
    nearest = (points @ points.T).fill_diagonal_(-1).argmax(1)
    return -torch.log(F.pairwise_distance(points, points[nearest], eps=1e-8) + 1e-8).mean()

"""DINOv2 as a task: a student learns to say of a part what a slow copy of itself says of the whole [1].

The teacher sees both global crops, the student sees them with masked patches, and small local crops. Three losses:
CLS of every crop against the teacher's CLS of the other crops (DINO), masked patches against the teacher's patches
(iBOT), and CLS tokens pushed apart (KoLeo).

Legend: B images, L local crops an image, N patches of a global crop, P prefix tokens, D width, K prototypes.

[1] Oquab et al., DINOv2, 2023. https://arxiv.org/abs/2304.07193
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from fmseg.networks.lean import matmul_dtype
from fmseg.networks.ranks import local_parts
from fmseg.networks.vit import ViT
from fmseg.records.plans import Pretraining
from fmseg.tasks.dino_collapse import collapse_measures
from fmseg.tasks.dino_contrast import contrast_crops, contrast_patches
from fmseg.tasks.dino_heads import PixelHead, ProjectionHead
from fmseg.tasks.dino_losses import koleo, prototype_cross_entropy
from fmseg.tasks.dino_prototypes import Prototypes, rounded_prototypes
from fmseg.tasks.dino_targets import (
    Centre,
    Targets,
    joined_targets,
    sinkhorn_targets,
    softmax_targets,
)

Batch = dict[str, Tensor]
Values = dict[str, Tensor]
GLOBALS = 2


@dataclass(frozen=True, slots=True)
class _Taught:
    """What the teacher says of a batch."""

    #: (2 B, K), each image's other crop
    cls_targets: Tensor
    #: of the masked patches
    patch_targets: Targets
    #: (2 B, E), each crop's own, and (T, E)
    cls_rows: Tensor
    patch_rows: Tensor
    signs: Values


class DinoNetwork(nn.Module):
    """A backbone and its heads: one for all tokens, or a second one for patches."""

    def __init__(self, recipe: Pretraining, backbone: ViT) -> None:
        super().__init__()
        self.backbone = backbone
        self.dino_head = _head(recipe)
        self.ibot_head = None if recipe.shared_head else _head(recipe)
        self.pixel_head = PixelHead(recipe.architecture) if recipe.pixel_weight > 0 else None

    @property
    def patch_head(self) -> ProjectionHead:
        """The head that patch tokens go through."""
        return self.ibot_head or self.dino_head

    def project(self, cls: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of CLS and of patch tokens that meet the prototypes; a shared head runs once."""
        if self.ibot_head is not None:
            return self.dino_head(cls), self.ibot_head(patches)
        rows = self.dino_head(torch.cat([cls, patches]))
        return rows[: len(cls)], rows[len(cls) :]

    def cross_entropy(
        self,
        rows: tuple[Tensor, Tensor],
        targets: tuple[Targets, Targets],
        weights: tuple[Tensor, Tensor],
        temperature: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weighted sum of all cross-entropies, and without gradient those of CLS and of patch rows."""
        shared = self.dino_head.last_layer
        if self.ibot_head is None:
            count, both = len(rows[0]), joined_targets(len(rows[0]), *targets)
            loss, each = prototype_cross_entropy(torch.cat(rows), shared, both, torch.cat(weights), temperature)
            return loss, each[:count], each[count:]
        (dino, cls), (ibot, patches) = (
            prototype_cross_entropy(*each, temperature)
            for each in zip(rows, (shared, self.ibot_head.last_layer), targets, weights, strict=True)
        )
        return dino + ibot, cls, patches


class DinoTask(nn.Module):
    """Student (``model``) and teacher, and the centres of the teacher's targets.

    The teacher's backbone is what is worth keeping.
    """

    def __init__(self, recipe: Pretraining, student: ViT, teacher: ViT) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = DinoNetwork(recipe, student)
        self.teacher = DinoNetwork(recipe, teacher)
        self.teacher.load_state_dict(self.model.state_dict())
        self.teacher.requires_grad_(False)
        has_centres = recipe.centering == "softmax"
        self.dino_centre = Centre(recipe.num_prototypes, recipe.center_momentum) if has_centres else None
        self.ibot_centre = Centre(recipe.num_prototypes, recipe.center_momentum) if has_centres else None
        self.train()

    @classmethod
    def build(cls, recipe: Pretraining) -> Self:
        """Return the task with random weights: a function of torch's seed alone."""
        architecture = recipe.architecture
        student = ViT(architecture, recipe.drop_path)
        student.checkpointing = recipe.checkpointing
        return cls(recipe, student, ViT(architecture))

    @property
    def teacher_backbone(self) -> ViT:
        """The averaged backbone, which finetuning starts from."""
        return self.teacher.backbone

    def train(self, mode: bool = True) -> Self:
        """Switch the student between training and evaluation; the teacher always evaluates."""
        super().train(mode)
        self.teacher.eval()
        return self

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Have torch compile the layers of student and teacher for this training's views; others' are forgotten."""
        from torch import _dynamo  # seconds

        # torch compiles few variants of a function in a process, and then no more: earlier trainings count as well
        _dynamo.reset()
        # single layers are compiled: there is nothing to cut where DDP sends gradients
        _dynamo.config.optimize_ddp = False
        for network in (self.model, self.teacher):
            network.backbone.compile_blocks(backend)

    def clip_modules(self) -> list[nn.Module]:
        """Return the modules whose gradients are clipped each on its own."""
        return list(self.model.children())

    def training_loss(self, batch: Batch, step: int) -> tuple[Tensor, Values]:
        """Return the loss of one batch, and its parts and signs of collapse as detached 0-d tensors.

        batch: globals (2 B, C, H, W), all first crops before all second ones; locals (L B, C, h, w) likewise, L may
        be 0; masks (2 B, N) bool. step counts from 0.
        """
        recipe, images, masks = self.recipe, batch["globals"], batch["masks"]
        masked = masks.flatten().nonzero().squeeze(1)
        taught = self._teach(images, masked, self.teacher_temperature(step))
        local_cls, global_cls, patches = self._study(images, batch["locals"], masks, masked)
        rows = self.model.project(torch.cat([local_cls, global_cls]), patches)
        cls_weights, teachers = _pair_crops(len(images) // GLOBALS, len(local_cls), taught.cls_targets)
        patch_weights = _mask_weights(masks, masked)
        crossed, cls_each, patch_each = self.model.cross_entropy(
            rows,
            (teachers, taught.patch_targets),
            (recipe.dino_weight * cls_weights, recipe.ibot_weight * patch_weights),
            recipe.student_temperature,
        )
        dino_local, dino_global = (cls_weights * cls_each).split([len(local_cls), len(global_cls)])
        ibot = torch.dot(patch_weights, patch_each)
        spread = torch.stack([koleo(crop) for crop in global_cls.chunk(GLOBALS)]).sum()

        loss = crossed + recipe.koleo_weight * spread
        parts = {"dino_local": dino_local.sum(), "dino_global": dino_global.sum(), "ibot": ibot, "koleo": spread}
        if self.model.pixel_head is not None:
            parts["pixels"] = self.model.pixel_head.loss(patches, images, masked, patch_weights)
            loss = loss + recipe.pixel_weight * parts["pixels"]
        if recipe.contrast_weight > 0:
            parts["contrast"] = contrast_crops(rows[0], taught.cls_rows, recipe.contrast_temperature)
            loss = loss + recipe.contrast_weight * parts["contrast"]
        if recipe.patch_contrast_weight > 0:
            parts["patch_contrast"] = contrast_patches(
                rows[1], taught.patch_rows, patch_weights, recipe.contrast_temperature
            )
            loss = loss + recipe.patch_contrast_weight * parts["patch_contrast"]
        return loss, {name: part.detach() for name, part in parts.items()} | taught.signs

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the teacher towards the student, and the centres towards the teacher's mean answer."""
        share = 1 - self.teacher_momentum(step)
        teacher, student = (local_parts(network) for network in (self.teacher, self.model))
        torch._foreach_lerp_(teacher, student, share)
        for centre in (self.dino_centre, self.ibot_centre):
            if centre is not None:
                centre.update()

    def split(self, batch: Batch, parts: int) -> list[Batch] | None:
        """Return a batch in parts of as many images each; None if one would have less than two, for KoLeo."""
        num_images, pieces = len(batch["globals"]) // GLOBALS, [Batch() for _ in range(parts)]
        if num_images % parts or num_images < 2 * parts:
            return None
        for name, tensor in batch.items():
            crops = tensor.unflatten(0, (-1, num_images))  # (crops, B, ...)
            for piece, chunk in zip(pieces, crops.chunk(parts, 1), strict=True):
                piece[name] = chunk.flatten(0, 1)
        return pieces

    def forget_step(self) -> None:
        """Drop what a step left for ``after_step``: it is begun anew."""
        for centre in (self.dino_centre, self.ibot_centre):
            if centre is not None:
                centre.forget()

    def teacher_momentum(self, step: int) -> float:
        """Return the share of itself that the teacher keeps: half a cosine over all iterations."""
        start, end = self.recipe.teacher_momentum
        progress = min(step / self.recipe.iterations, 1.0)
        return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2

    def teacher_temperature(self, step: int) -> float:
        """Return the temperature of the targets: linear over the warm-up, then constant."""
        start, end = self.recipe.teacher_temperature
        last = self.recipe.temperature_warmup_iterations - 1
        return end if step >= last else start + (end - start) * step / last

    @torch.no_grad()
    def _teach(self, images: Tensor, masked: Tensor, temperature: float) -> "_Taught":
        """Return what the teacher says of both global crops and of masked patches."""
        (tokens,) = self.teacher.backbone.forward_groups([images], [None])
        first, second = self.teacher.backbone.summary(tokens).chunk(GLOBALS)
        cls = torch.cat([second, first])
        patches = _select_patches(tokens, masked, self.teacher.backbone.num_prefix_tokens)
        cls_rows, patch_rows = self.teacher.project(cls, patches)
        cls_targets = _targets(self.dino_centre, cls_rows, self.teacher.dino_head.last_layer, temperature)(slice(None))
        patch_targets = _targets(self.ibot_centre, patch_rows, self.teacher.patch_head.last_layer, temperature)
        second_rows, first_rows = cls_rows.chunk(GLOBALS)
        signs = collapse_measures(cls, cls_targets)
        return _Taught(cls_targets, patch_targets, torch.cat([first_rows, second_rows]), patch_rows, signs)

    def _study(self, images: Tensor, crops: Tensor, masks: Tensor, masked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the student's CLS of local and global crops, (L B, D) and (2 B, D), and its masked patches (T, D)."""
        backbone = self.model.backbone
        if len(crops):
            tokens, local_tokens = backbone.forward_groups([images, crops], [masks, None])
            local_cls = backbone.summary(local_tokens)
        else:
            (tokens,) = backbone.forward_groups([images], [masks])
            local_cls = backbone.summary(tokens[:0])
        return local_cls, backbone.summary(tokens), _select_patches(tokens, masked, backbone.num_prefix_tokens)


def _head(recipe: Pretraining) -> ProjectionHead:
    return ProjectionHead(
        recipe.architecture.width,
        recipe.head_hidden,
        recipe.head_bottleneck,
        num_prototypes=recipe.num_prototypes,
        trainable_gain=recipe.trainable_gain,
    )


def _targets(centre: Centre | None, rows: Tensor, prototypes: Prototypes, temperature: float) -> Targets:
    rounded = rounded_prototypes(prototypes.weight_v, prototypes.weight_g, matmul_dtype(rows))
    if centre is None:
        return sinkhorn_targets(rows, rounded, temperature)
    centre.observe(prototypes.summed_logits(rows), len(rows))
    return softmax_targets(rows, rounded, centre.value, temperature)


def _select_patches(tokens: Tensor, masked: Tensor, num_prefix: int) -> Tensor:
    """Return the tokens (T, D) of patches, counted over all images; tokens: (2 B, P + N, D)."""
    num_patches = tokens.shape[1] - num_prefix
    position = masked // num_patches * tokens.shape[1] + num_prefix + masked % num_patches
    return tokens.flatten(0, 1).index_select(0, position)


def _mask_weights(masks: Tensor, masked: Tensor) -> Tensor:
    """Return each masked patch's share of the loss: alike within an image; all 2 B images count, masked or not."""
    weights = 1 / (masks.sum(1).clamp(min=1) * len(masks))
    return weights.index_select(0, masked // masks.shape[1])


def _pair_crops(num_images: int, num_local_rows: int, targets: Tensor) -> tuple[Tensor, Targets]:
    """Return weight and target of each CLS row: all local crops, then the global ones.

    targets: (2 B, K), already swapped. A local crop meets both global crops, which is twice a meeting with their
    mean. All pairs of crops of an image count alike; DINOv2 counts one more where there are no local crops.
    """
    num_locals = num_local_rows // num_images
    pair = 1 / (num_images * (GLOBALS + max(GLOBALS * num_locals, 1)))
    weights = targets.new_full((num_local_rows + GLOBALS * num_images,), pair)
    weights[:num_local_rows] *= GLOBALS
    first, second = targets.chunk(GLOBALS)
    source = torch.cat([targets, (first + second) / 2])
    images = torch.arange(num_images, device=targets.device)
    index = torch.cat([(images + GLOBALS * num_images).repeat(num_locals), images, images + num_images])
    return weights, lambda part: source.index_select(0, index[part])

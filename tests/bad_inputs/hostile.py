"""Files of weights, records and archives as an attacker, or a broken disk, would write them.

Each function writes one file; whatever reads it must refuse it with one message, and run nothing of it. A pickle in
here, run by anybody, makes the file CANARY in the current directory.
"""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

CANARY = "canary_of_hostile_code"

Writer = Callable[[Path, dict[str, torch.Tensor]], object]

#: name -> writes a file in the place of safetensors that hold the given tensors
WEIGHTS: dict[str, Writer] = {}
#: name -> writes an archive, in the place of an exported model; ``files`` is what a sound one holds
ARCHIVES: dict[str, Callable[[Path, dict[str, bytes]], object]] = {}


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {CANARY}",)


def weights(writer: Writer) -> Writer:
    WEIGHTS[writer.__name__.replace("_", " ")] = writer
    return writer


def archive(writer: Callable[[Path, dict[str, bytes]], object]) -> Callable:
    ARCHIVES[writer.__name__.replace("_", " ")] = writer
    return writer


def packed(header: bytes, data: bytes, length: int | None = None) -> bytes:
    """Return a safetensors file from its parts."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def parts(tensors: dict[str, torch.Tensor]) -> tuple[dict[str, dict], bytes]:
    """Return header and data of sound safetensors."""
    header, data = {}, b""
    for name, tensor in tensors.items():
        content = tensor.detach().float().contiguous().numpy().tobytes()
        place = [len(data), len(data) + len(content)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": place}
        data += content
    return header, data


def rewritten(path: Path, tensors: dict[str, torch.Tensor], change: Callable[[dict], object]) -> None:
    header, data = parts(tensors)
    change(header)
    path.write_bytes(packed(json.dumps(header).encode(), data))


@weights
def a_pickle(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.write_bytes(pickle.dumps(Payload()))


@weights
def a_file_of_torch(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save(Payload(), path)


@weights
def an_old_file_of_torch(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save({"model": Payload()}, path, _use_new_zipfile_serialization=False)


@weights
def an_array_of_objects(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    with open(path, "wb") as file:
        np.save(file, np.array([Payload()], dtype=object), allow_pickle=True)


@weights
def nothing(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.write_bytes(b"")


@weights
def half_of_it(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    header, data = parts(tensors)
    content = packed(json.dumps(header).encode(), data)
    path.write_bytes(content[: len(content) // 2])


@weights
def a_header_of_an_exabyte(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.write_bytes(packed(b"{}", b"", length=2**60))


@weights
def a_header_that_is_no_text(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.write_bytes(packed(b"\xff\xfe\x00{{{{", b"\0" * 64))


@weights
def a_header_without_bottom(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.write_bytes(packed(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", b""))


@weights
def a_header_that_is_a_list(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.write_bytes(packed(b"[]", b""))


@weights
def a_name_twice(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    header, data = parts(tensors)
    first = next(iter(header))
    text = json.dumps(header)
    path.write_bytes(packed(f"{text[:-1]}, {json.dumps(first)}: {json.dumps(header[first])}}}".encode(), data))


@weights
def a_key_of_a_tensor_twice(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    header, data = parts(tensors)
    path.write_bytes(packed(json.dumps(header).replace('"dtype"', '"dtype": "F32", "dtype"', 1).encode(), data))


@weights
def tensors_that_overlap(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    def overlap(header: dict) -> None:
        big = max(header, key=lambda name: header[name]["data_offsets"][1] - header[name]["data_offsets"][0])
        for name in header:
            if name != big and header[name]["data_offsets"][0] > 0:
                size = header[name]["data_offsets"][1] - header[name]["data_offsets"][0]
                header[name]["data_offsets"] = [0, size]
                return

    rewritten(path, tensors, overlap)


@weights
def a_tensor_behind_the_end(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    rewritten(path, tensors, lambda header: next(iter(header.values())).update(data_offsets=[2**40, 2**40 + 4]))


@weights
def a_tensor_that_ends_before_it_begins(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    rewritten(path, tensors, lambda header: next(iter(header.values())).update(data_offsets=[8, 0]))


@weights
def a_shape_without_its_data(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    rewritten(path, tensors, lambda header: next(iter(header.values())).update(shape=[2**31, 2**31]))


@weights
def a_negative_shape(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    rewritten(path, tensors, lambda header: next(iter(header.values())).update(shape=[-1]))


@weights
def an_unknown_type(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    rewritten(path, tensors, lambda header: next(iter(header.values())).update(dtype="OBJECT"))


@weights
def more_behind_the_end(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    header, data = parts(tensors)
    path.write_bytes(packed(json.dumps(header).encode(), data + pickle.dumps(Payload())))


@weights
def a_weight_that_is_no_number(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    spoiled = {name: tensor.clone() for name, tensor in tensors.items()}
    next(iter(spoiled.values())).view(-1)[0] = float("nan")
    rewritten(path, spoiled, lambda header: None)


@weights
def an_infinite_weight(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    spoiled = {name: tensor.clone() for name, tensor in tensors.items()}
    next(iter(spoiled.values())).view(-1)[0] = float("-inf")
    rewritten(path, spoiled, lambda header: None)


@weights
def a_tensor_missing(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    rewritten(path, dict(list(tensors.items())[:-1]), lambda header: None)


@weights
def a_tensor_too_many(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    rewritten(path, tensors | {"../../../etc/passwd\x1b[2J": torch.zeros(3)}, lambda header: None)


@weights
def a_tensor_of_another_shape(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    name = next(iter(tensors))
    rewritten(path, tensors | {name: torch.zeros(tensors[name].numel() + 1)}, lambda header: None)


@weights
def a_folder(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.mkdir()


# archives


def zipped(path: Path, entries: dict[str, bytes], attributes: dict[str, int] | None = None) -> None:
    """Write a zip; attributes: mode of a name, as of a link."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (attributes or {}).get(name, 0o644) << 16
            file.writestr(info, content, zipfile.ZIP_DEFLATED)


@archive
def a_path_that_climbs(path: Path, files: dict[str, bytes]) -> None:
    zipped(path, files | {f"../../{CANARY}": b"escaped"})


@archive
def a_path_from_the_root(path: Path, files: dict[str, bytes]) -> None:
    zipped(path, files | {f"{path.parent.absolute()}/{CANARY}": b"escaped"})


@archive
def a_path_of_windows(path: Path, files: dict[str, bytes]) -> None:
    zipped(path, files | {f"..\\..\\{CANARY}": b"escaped"})


@archive
def a_link(path: Path, files: dict[str, bytes]) -> None:
    zipped(path, files | {"linked.json": b"/etc/passwd"}, {"linked.json": 0o120777})


@archive
def a_link_and_a_file_behind_it(path: Path, files: dict[str, bytes]) -> None:
    entries = {"door": str(path.parent.absolute()).encode(), f"door/{CANARY}": b"escaped"}
    zipped(path, files | entries, {"door": 0o120777})


@archive
def a_bomb(path: Path, files: dict[str, bytes]) -> None:
    zipped(path, files | {"bomb.json": bytes(2**26)})


@archive
def ten_thousand_files(path: Path, files: dict[str, bytes]) -> None:
    zipped(path, files | {f"f{number}.json": b"{}" for number in range(10_000)})


@archive
def a_name_of_two_files(path: Path, files: dict[str, bytes]) -> None:
    zipped(path, files)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(next(iter(files)), b"{}")


@archive
def a_pickle_among_the_files(path: Path, files: dict[str, bytes]) -> None:
    zipped(path, files | {"model.pkl": pickle.dumps(Payload())})


@archive
def code_among_the_files(path: Path, files: dict[str, bytes]) -> None:
    zipped(path, files | {"plugin.py": f"open({CANARY!r}, 'w')".encode()})


@archive
def half_an_archive(path: Path, files: dict[str, bytes]) -> None:
    zipped(path, files)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@archive
def a_tar_with_a_device(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as file:
        device = tarfile.TarInfo("null")
        device.type = tarfile.CHRTYPE
        file.addfile(device)
        content = tarfile.TarInfo(f"../{CANARY}")
        content.size = 7
        file.addfile(content, io.BytesIO(b"escaped"))


@archive
def a_web_page(path: Path, files: dict[str, bytes]) -> None:
    path.write_text("<html>404</html>")


@archive
def a_file_of_torch_for_an_archive(path: Path, files: dict[str, bytes]) -> None:
    torch.save({"model": Payload()}, path)

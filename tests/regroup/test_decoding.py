"""Decoders of batches: which path each image takes, whatever its neighbours."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from regroup.errors import ConfigurationError
from regroup.images.decoding import Decoder, PilDecoder, TorchvisionDecoder, open_decoder
from regroup.images.depth import UnreadableImageError
from regroup.images.preprocessing import (
    INTERPOLATIONS,
    Preprocessing,
    decode_image,
)
from regroup.models import ModelSpec, load_classifier
from tests.cluster.test_images_of_imagenet import BAD, GOOD

PREPROCESSING = Preprocessing(crop=24, resize=32, decoder="cuda")
# What PIL decodes whatever the decoder is; all else that is good goes to torchvision.
PIL_ONLY = ("cmyk", "png", "ycck")
JPEGS = [name for name in GOOD if name not in PIL_ONLY]
MIXED = dict(itertools.chain(*zip(GOOD.items(), BAD.items(), strict=False))) | GOOD
V2 = {
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
    "nearest": v2.InterpolationMode.NEAREST_EXACT,
}


def one(decoder: Decoder, data: bytes) -> Tensor:
    decoded = decoder([data])
    assert decoded.errors == {}
    return decoded.pixels[0]


def torchvision_tensor(data: bytes, p: Preprocessing) -> Tensor:
    """By torchvision's own reader of bytes and its transforms."""
    encoded = torch.tensor(list(data), dtype=torch.uint8)
    image = torchvision.io.decode_image(encoded, torchvision.io.ImageReadMode.RGB)
    steps = [v2.CenterCrop(p.crop), v2.ToDtype(torch.float32, scale=True)]
    if p.resize is not None:
        steps.insert(0, v2.Resize(p.resize, V2[p.interpolation], antialias=True))
    pixels: Tensor = v2.Compose(steps)(image)
    return pixels


def refuse(data: bytes) -> Callable[..., Any]:
    """`decode_jpeg` that refuses every list with `data` in it, as nvJPEG may do."""
    real = torchvision.io.decode_jpeg

    def decode_jpeg(images: list[Tensor], *rest: Any) -> Any:
        if any(bytes(image.numpy()) == data for image in images):
            raise RuntimeError("not supported")
        return real(images, *rest)

    return decode_jpeg


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("name", JPEGS)
def test_jpegs_are_torchvisions(name: str, interpolation: Any) -> None:
    p = Preprocessing(24, 32, interpolation, "cuda")
    pixels = one(TorchvisionDecoder(p, "cpu"), GOOD[name])
    torch.testing.assert_close(pixels, torchvision_tensor(GOOD[name], p), rtol=0, atol=1e-7)
    # Another decoder of the same picture: a few levels of 255, neither turned nor shifted.
    assert np.abs(pixels.numpy() - decode_image(GOOD[name], p)).mean() < 1.5 / 255


@pytest.mark.parametrize("name", PIL_ONLY)
def test_what_a_gpu_does_not_decode_is_pils(name: str) -> None:
    pixels = one(TorchvisionDecoder(PREPROCESSING, "cpu"), GOOD[name])
    np.testing.assert_array_equal(pixels.numpy(), decode_image(GOOD[name], PREPROCESSING))


def test_only_whole_jpegs_of_light_are_given_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """How nvJPEG decodes inks and half an image is unknown: it never sees them."""
    decoder = TorchvisionDecoder(PREPROCESSING, "cpu")
    given: list[bytes] = []
    real = torchvision.io.decode_jpeg

    def decode_jpeg(images: list[Tensor], *rest: Any) -> Any:
        given.extend(bytes(image.numpy()) for image in images)
        return real(images, *rest)

    monkeypatch.setattr(torchvision.io, "decode_jpeg", decode_jpeg)
    decoder(list(MIXED.values()))
    assert sorted(given) == sorted(GOOD[name] for name in JPEGS)


def test_an_image_without_resize_keeps_its_size() -> None:
    whole = Preprocessing(36, decoder="cuda")
    buffer = io.BytesIO()
    Image.effect_noise((36, 36), 50).convert("RGB").save(buffer, "JPEG")
    data = buffer.getvalue()
    decoder = TorchvisionDecoder(whole, "cpu")
    levels = (torchvision_tensor(data, whole) * 255).round().numpy()
    np.testing.assert_array_equal(one(decoder, data).numpy(), levels / np.float32(255))
    assert "48 x 36 px" in decoder([GOOD["jpeg"]]).errors[0]


@pytest.mark.parametrize("make", [PilDecoder, lambda p: TorchvisionDecoder(p, "cpu")])
def test_neighbours_and_threads_change_nothing(make: Callable[[Preprocessing], Decoder]) -> None:
    decoder = make(PREPROCESSING)
    names = list(MIXED)
    with ThreadPoolExecutor(3) as pool:
        decoded = decoder([MIXED[name] for name in names], pool.map)
    good = [name for name in names if name in GOOD]
    assert len(decoded.pixels) == len(good)
    for name, pixels in zip(good, decoded.pixels, strict=True):
        assert torch.equal(pixels, one(decoder, GOOD[name])), name
    assert list(decoded.errors) == [place for place, name in enumerate(names) if name in BAD]
    for place, reason in decoded.errors.items():
        with pytest.raises(UnreadableImageError) as raised:
            decode_image(MIXED[names[place]], PREPROCESSING)
        assert reason == str(raised.value)


@pytest.mark.parametrize("images", [[], [b""]])
def test_no_good_image_gives_no_pixels(images: list[bytes]) -> None:
    for decoder in (PilDecoder(PREPROCESSING), TorchvisionDecoder(PREPROCESSING, "cpu")):
        decoded = decoder(images)
        assert (decoded.pixels.shape, decoded.pixels.dtype) == ((0, 3, 24, 24), torch.float32)
        assert list(decoded.errors) == list(range(len(images)))


def test_what_the_device_refuses_is_pils_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = TorchvisionDecoder(PREPROCESSING, "cpu")
    names = ["jpeg", "progressive", "exif"]
    expected = [one(decoder, GOOD[name]) for name in names]
    monkeypatch.setattr(torchvision.io, "decode_jpeg", refuse(GOOD["progressive"]))
    found = decoder([GOOD[name] for name in names]).pixels
    assert torch.equal(found[0], expected[0])
    np.testing.assert_array_equal(
        found[1].numpy(), decode_image(GOOD["progressive"], PREPROCESSING)
    )
    assert not torch.equal(found[1], expected[1])
    assert torch.equal(found[2], expected[2])


def test_a_torchvision_that_cannot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every image would quietly be PIL's, under the other decoder's fingerprint."""

    def decode_jpeg(*_: object) -> None:
        raise RuntimeError("not compiled\nwith nvJPEG support")

    monkeypatch.setattr(torchvision.io, "decode_jpeg", decode_jpeg)
    with pytest.raises(ConfigurationError, match=r"not compiled with nvJPEG.*--decoder pil") as e:
        TorchvisionDecoder(PREPROCESSING, "cpu")
    assert "\n" not in str(e.value)


def test_gpu_decoder_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="computes on cpu; give the workers GPUs"):
        open_decoder(PREPROCESSING, "cpu")
    assert isinstance(open_decoder(Preprocessing(24, 32), "cuda"), PilDecoder)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: nvJPEG needs one")
def test_gpu_decodes_what_torchvision_does_on_the_cpu() -> None:
    decoder = open_decoder(PREPROCESSING, "cuda")
    names = list(MIXED)
    decoded = decoder([MIXED[name] for name in names])
    assert decoded.pixels.is_cuda
    on_cpu = TorchvisionDecoder(PREPROCESSING, "cpu")([MIXED[name] for name in names])
    assert decoded.errors == on_cpu.errors
    good = [name for name in names if name in GOOD]
    for name, gpu, cpu in zip(good, decoded.pixels.cpu(), on_cpu.pixels, strict=True):
        if name in PIL_ONLY:
            assert torch.equal(gpu, cpu)
        assert float((gpu - cpu).abs().max()) < 8 / 255, name
        assert torch.equal(one(decoder, GOOD[name]).cpu(), gpu), "alone as among others"


def test_fingerprint_names_the_decoder_only_where_it_is_not_pil() -> None:
    plain = load_classifier(ModelSpec("digits-cnn", "random")).describe()
    other = load_classifier(ModelSpec("digits-cnn", "random", decoder="cuda")).describe()
    assert plain["preprocessing"] == {"crop": 16, "resize": 16, "interpolation": "bilinear"}
    assert other["preprocessing"] == {**plain["preprocessing"], "decoder": "cuda"}


def test_unknown_decoder_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="unknown decoder 'dali': choose one of pil, cuda"):
        load_classifier(ModelSpec("digits-cnn", "random", decoder="dali"))  # type: ignore[arg-type]

"""The backbones by name; each is a function that builds the feature extractor and returns its Features."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from compose.backbones import csppeleenet, darknet, densenet, mobilenet, peleenet, resnet, vovnet
from compose.net import Backbone

GAMMAS = {"g25": 0.25, "g50": 0.5, "g75": 0.75}


def _vovnet(size: str, *, forms: bool = True) -> dict[str, Backbone]:
    """The PyTorch form under the plain name and, with `forms` (the sizes in the paper), the Caffe form too."""
    found = {f"vovnet{size}": Backbone(f"VoVNet-{size}", "public", partial(vovnet.vovnet, size=size))}
    if forms:
        caffe = partial(vovnet.vovnet, size=size, form="caffe")
        found[f"vovnet{size}-caffe"] = Backbone(f"VoVNet-{size}, Caffe form", "public", caffe)
    return found


BACKBONES: Mapping[str, Backbone] = {
    "peleenet": Backbone("PeleeNet", "public", peleenet.peleenet),
    "peleenet-se": Backbone("PeleeNet with SE", "fitted", partial(peleenet.peleenet, squeeze=True)),
    "speleenet": Backbone("SPeleeNet (SparseNet connections)", "derived", peleenet.speleenet),
    "peleenext": Backbone("PeleeNeXt (8 channels per group)", "derived", partial(peleenet.peleenet, group_width=8)),
    "partialpeleenet": Backbone("PartialPelee", "derived", partial(peleenet.peleenet, partial=True)),
    **{
        f"csppeleenet-first-{name}": Backbone(
            f"PeleeNet, CSP fusion first, gamma {gamma}", "fitted", partial(csppeleenet.fusion_first, gamma=gamma)
        )
        for name, gamma in GAMMAS.items()
    },
    **{
        f"csppeleenet-last-{name}": Backbone(
            f"PeleeNet, CSP fusion last, gamma {gamma}", "figure", partial(csppeleenet.fusion_last, gamma=gamma)
        )
        for name, gamma in GAMMAS.items()
    },
    "csppeleenet": Backbone("CSPPeleeNet", "figure", csppeleenet.csppeleenet),
    "csppeleenet-g25": Backbone("CSPPeleeNet, gamma 0.25", "figure", partial(csppeleenet.csppeleenet, gamma=0.25)),
    "csppeleenet-g75": Backbone("CSPPeleeNet, gamma 0.75", "figure", partial(csppeleenet.csppeleenet, gamma=0.75)),
    "csppeleenet-se": Backbone("CSPPeleeNet with SE", "fitted", partial(csppeleenet.csppeleenet, squeeze=True)),
    "csppeleenet-ref": Backbone("CSPPeleeNet Reference", "fitted", csppeleenet.csppeleenet_ref),
    "csppeleenetb-ref": Backbone("CSPPeleeNetb Reference", "fitted", partial(csppeleenet.csppeleenet_ref, last_size=1)),
    "cspdensenet-ref": Backbone("CSPDenseNet Reference", "fitted", csppeleenet.cspdensenet_ref),
    "cspdensenetb-ref": Backbone("CSPDenseNetb Reference", "fitted", partial(csppeleenet.cspdensenet_ref, last_size=1)),
    "darknet-ref": Backbone("Darknet Reference", "cfg", darknet.reference),
    "tiny": Backbone("YOLOv3-tiny's backbone", "cfg", darknet.tiny),
    "tiny-partial": Backbone("YOLOv3-tiny's backbone with a 512-wide end", "cfg", darknet.tiny_partial),
    "darknet53": Backbone("Darknet-53", "cfg", darknet.darknet53),
    "csdarknet53": Backbone("CSPDarknet-53", "cfg", darknet.cspdarknet53),
    "efficientnet-b0": Backbone("EfficientNet-B0", "cfg", mobilenet.efficientnet_b0),
    "mobilenet-v2": Backbone("MobileNet-v2", "cfg", mobilenet.mobilenet_v2),
    "csmobilenet-v2": Backbone("CSPMobileNet-v2", "cfg", mobilenet.cspmobilenet_v2),
    "resnet10": Backbone("ResNet-10", "cfg", resnet.resnet10),
    "cspresnet10": Backbone("CSPResNet-10", "fitted", resnet.cspresnet10),
    "resnet50": Backbone("ResNet-50", "cfg", partial(resnet.residual, name="resnet50", blocks=(3, 4, 6, 3))),
    "csresnet50": Backbone("CSPResNet-50", "cfg", partial(resnet.csp_residual, name="csresnet50", blocks=(3, 3, 5, 2))),
    "resnet101": Backbone("ResNet-101", "cfg", partial(resnet.residual, name="resnet101", blocks=(3, 4, 23, 3))),
    "csresnet101": Backbone(
        "CSPResNet-101", "derived", partial(resnet.csp_residual, name="csresnet101", blocks=(3, 3, 22, 2))
    ),
    "resnet152": Backbone("ResNet-152", "public", resnet.resnet152),
    "resnext50": Backbone(
        "ResNeXt-50", "cfg", partial(resnet.residual, name="resnext50", blocks=(3, 4, 6, 3), groups=32)
    ),
    "csresnext50": Backbone(
        "CSPResNeXt-50", "cfg", partial(resnet.csp_residual, name="cspresnext50", blocks=(3, 3, 5, 2), groups=32)
    ),
    "res2net50": Backbone("Res2Net-50 (26w x 4s)", "public", partial(resnet.res2net, name="res2net50", width=26)),
    "res2next50": Backbone(
        "Res2NeXt-50 (4w x 4s x 8c)", "public", partial(resnet.res2net, name="res2next50", width=32, groups=8)
    ),
    "densenet40": Backbone("DenseNet-40 (k = 12)", "public", densenet.densenet40),
    "densenet40-osa": Backbone("DenseNet-40 with OSA modules (5 x 43)", "fitted", vovnet.densenet40_osa),
    "densenet40-osa-12x20": Backbone(
        "DenseNet-40 with OSA modules (12 x 20)", "fitted", partial(vovnet.densenet40_osa, layers=12, width=20)
    ),
    "densenet161": Backbone(
        "DenseNet-161 (k = 48)", "public", partial(densenet.densenet, layers=(6, 12, 36, 24), growth=48)
    ),
    "densenet201": Backbone("DenseNet-201 (k = 32)", "cfg", densenet.densenet201),
    "densenet264": Backbone("DenseNet-264 (k = 32)", "public", partial(densenet.densenet, layers=(6, 12, 64, 48))),
    "densenet201-elastic": Backbone("DenseNet-201-Elastic", "public", densenet.densenet201_elastic),
    "cspdensenet201-elastic": Backbone("CSPDenseNet-201-Elastic", "fitted", densenet.cspdensenet201_elastic),
    "hardnet138s": Backbone("HarDNet-138s", "fitted", densenet.hardnet138s),
    **_vovnet("27-slim"),
    "vovnet27-slim-bottleneck": Backbone(
        "VoVNet-27-slim, Caffe form, with 1x1 bottlenecks",
        "derived",
        partial(vovnet.vovnet, size="27-slim", form="caffe", bottleneck=True),
    ),
    **_vovnet("39"),
    **_vovnet("57"),
    **_vovnet("75", forms=False),
    **_vovnet("93", forms=False),
}

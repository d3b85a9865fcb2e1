"""ImageNet (ILSVRC2012) from the containers that it usually comes in."""

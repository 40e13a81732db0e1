"""Models of two towers, one for texts and one for pictures, whose vectors share a space: CLIP and SigLIP."""

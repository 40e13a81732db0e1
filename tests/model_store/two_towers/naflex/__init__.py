"""SigLIP 2 NaFlex: pictures in their own shapes."""

"""From trained runs to label maps: windows, mirroring, ensembles, clean-up."""

"""The hold on PaddleSeg: registry, repairs, and what replaces functions of others."""

"""Weight sharing: how alike layers are, one weight for several of them, and residual blocks that can be dropped."""

"""FlashVSR: one-step diffusion super-resolution of live video; see docs/flashvsr.md."""

"""FlashVSR: one-step diffusion super-resolution of live video; see docs/flashvsr.md.

The way of a frame, and the file for each step; read them in this order:

    session.py       one stream's account: frames in, owed, out; primed start, park and resume
      resize.py        bicubic to the target size: all that enlarges
      chunks.py        takes enlarged frames one by one, and runs a chunk when it is complete
        projector.py     each clip of 4 frames to tokens, as it arrives
        noise.py         where the latents start from, keyed by seed and chunk
        dit.py           the denoiser, one evaluation a chunk
          windows.py       tokens in the order of attention's blocks, and back
          rope.py          positions, computed rather than looked up
          memory.py        keys and values of earlier chunks, a ring in one stream's memory
          fused.py         what lies between matrix products, one pass each; *_triton.py are kernels
          selection.py     which blocks attend to which, handed on as blocks.py says
          attention.py     does it; triton_attention.py is the kernel for CUDA
        graphs.py        the parts of the steady step, replayed as CUDA graphs
        decoder.py       latents to frames (TCDecoder); vae.py for `flashvsr-full`
        colour.py        the input's colours back into the result

Around it: config.py (sizes of the networks), settings.py (what users choose), model.py (the
networks of one pipeline), upscaler.py (what the engine sees), loading.py and published.py (from
the published files to these networks), tiny.py (random weights for tests).
"""

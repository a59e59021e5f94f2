"""SwiftVR: one-step restoration of live video with dense attention; see docs/swiftvr.md.

The way of a frame, and the file for each step; read them in this order:

    session.py       one stream's account: frames in, owed, out; primed start, park and resume
      chunks.py        takes frames one by one, encodes, and runs a chunk when it is complete
        picture.py       enlarge to the target size, pad to whole tokens, crop again
        reae.py          frames to latents, and restored latents to frames
        dit.py           the denoiser, one evaluation a chunk
          grid.py          all constants of one size of chunk: order, rotation, windows
          windows.py       which tokens attend to each other, and what is done at the seam
          fp8.py           its linear layers in 8 bits, a preset
        together.py      the same chunk of several streams as one batch

Around it: config.py (sizes of the networks), settings.py (what users choose), memory.py (all that
one stream keeps), model.py (the networks), upscaler.py (what the engine sees), published.py (names
of the published files), fold.py (constants into weights), convert.py (20 GB to a file of what
runs), loading.py (files to networks), tiny.py (a made-up model for tests).
"""

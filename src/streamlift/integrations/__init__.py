"""Places inside other programs where streamlift's upscalers run; nothing else imports this."""

"""What publishers send: packets to pictures to frames."""

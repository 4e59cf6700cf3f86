"""The market genome: named tokens over several time frames in, levels, trend and the next movement out."""

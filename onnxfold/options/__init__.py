"""What a user may ask for, as frozen, checked data. No input or output happens here."""

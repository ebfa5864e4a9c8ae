"""Images that are made, not scanned: the digit rectangles of the TPAMI paper."""

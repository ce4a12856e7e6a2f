"""Every fault: what the page says, what the loop does, how it ends. docs/faults.md is made from here."""

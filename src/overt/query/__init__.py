"""Reading what was recorded, from any store: finding a run, listing and filtering runs, comparing them."""

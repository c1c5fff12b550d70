"""Rate studies: simulate, fit, measure the loss, estimate the slope; resumable, on one machine or many."""

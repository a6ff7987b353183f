"""How a fitted model acts: one act at a time, each as a whole, by the parameters of the fit."""

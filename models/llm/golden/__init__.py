"""What should the model have said? Hand-made questions, and the champions' scores on them."""

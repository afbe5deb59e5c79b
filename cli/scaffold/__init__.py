"""The files of a new project, as `millrace init` writes them; ``$name`` stands for its name."""

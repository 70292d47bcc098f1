"""The experiments of the report, one a file. The folder is the registry: a new file needs no edit elsewhere.

At its top an experiment states ``MINUTES``, what it takes on two cores in each profile that runs it; ``NEEDS``, the
experiments whose results it reads; ``USES`` has ``dataset``, the images of the VAE, and ``cuda``, without which it runs
only when it is asked for by name. Its ``run(options)`` returns what goes to ``results/NAME.json``, and draws
``figures/NAME_*``.
"""

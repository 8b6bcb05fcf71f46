"""The data plane of the local Cloud Run: containers as processes of this machine, behind a router; builds; gateways.

``builds`` carries out a build: ``dockerfile`` says what of a Dockerfile can be followed, ``images`` packs the files and
keeps them by their digest. ``containers`` turns a revision and its image into a command, ``instance`` is one process of
it, ``probes`` say when it is ready, ``launcher`` starts it and ``leftovers`` finds it again after a kill. ``pool`` has
the instances of a revision and those who wait for one; ``router`` sends the requests of a service to its revisions,
``invokers`` says who may call, ``forward`` hands a request on, ``listeners`` are the sockets. ``metadata`` gives
containers their tokens. ``gateway`` is API Gateway's front, with the paths of an ``openapi`` document.

``plane`` holds them together in one process, ``program`` starts and stops it, ``presence`` says whether one is wanted
and runs, ``door`` tells what it does and ``asking`` asks it. What exists is asked of the control plane each time
(``control_client``).
"""

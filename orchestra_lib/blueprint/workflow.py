"""The workflow that GitHub runs: it becomes the deployer by federation, pushes an image and deploys it without traffic.

Actions are pinned by commit: a tag can be moved to other code.
https://docs.github.com/en/actions/security-for-github-actions/security-guides/security-hardening-for-github-actions
"""

from __future__ import annotations

from orchestra_lib.blueprint import identities
from orchestra_lib.blueprint.delivery import POOL, PROVIDER, image_path
from orchestra_lib.blueprint.specification import specification
from orchestra_lib.settings import Settings

_CHECKOUT = "actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2"
_AUTH = "google-github-actions/auth@7c6bc770dae815cd3e89ee6cdf493a5fab2cc093 # v3.0.0"
_SETUP_GCLOUD = "google-github-actions/setup-gcloud@aa5489c8933f4cc7a4f7d45035b3b1440c9c10db # v3.0.1"

_TEMPLATE = """\
# Rendered by the runbook 01_infrastructure from its parameters: change them there and render it again.
# It belongs in .github/workflows/deploy.yml of {repository}. There is no key in it and none is needed.
name: deploy

on:
  push:
    branches: ["{branch}"]

permissions:
  contents: read
  id-token: write # asks GitHub for the token that Google Cloud takes in exchange

concurrency:
  group: deploy
  cancel-in-progress: false

jobs:
  deploy:
    runs-on: ubuntu-24.04
    timeout-minutes: 30
    env:
      IMAGE: {image}:${{{{ github.sha }}}}-${{{{ github.run_attempt }}}} # a tag never moves
    steps:
      - uses: {checkout}
        with:
          persist-credentials: false
      - uses: {auth}
        with:
          workload_identity_provider: {provider}
          service_account: {account}
      - uses: {setup_gcloud}
        with:
          project_id: {project}
      - name: Build and push the image
        run: |
          gcloud auth configure-docker {registry_host} --quiet
          docker build --tag "$IMAGE" .
          docker push "$IMAGE"
      - name: Deploy it without traffic, under a tag of its own
        run: >-
          gcloud run deploy {service} --image "$IMAGE" --region {region}
          --service-account {runtime} --no-traffic --tag candidate --quiet
"""


def workflow(settings: Settings, project_number: str) -> str:
    """The workflow file, YAML. ``project_number`` is the project's number, which federation wants and no id replaces.

    Traffic stays where it is: the runbook of the API moves it once the candidate has been measured. Raises
    ParameterError as :func:`orchestra_lib.blueprint.infrastructure` does.
    """
    spec = specification(settings)
    image = image_path(spec)
    return _TEMPLATE.format(
        repository=f"{spec.github.owner}/{spec.github.repository}",
        branch=spec.github.branch,
        image=image,
        registry_host=image.partition("/")[0],
        checkout=_CHECKOUT,
        auth=_AUTH,
        setup_gcloud=_SETUP_GCLOUD,
        provider=provider_name(project_number),
        account=spec.email_of(identities.DEPLOYER),
        project=spec.project.id,
        service=spec.api.service,
        region=spec.regions.primary,
        runtime=spec.email_of(identities.API),
    )


def provider_name(project_number: str) -> str:
    """The whole name of the provider, with the project's number."""
    return f"projects/{project_number}/locations/global/workloadIdentityPools/{POOL}/providers/{PROVIDER}"

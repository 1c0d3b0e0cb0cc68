"""Holds compose.yaml and kubernetes.yaml against the schemas that come with docker-compose and kubernetes-validate; no network."""

import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

compose, kubernetes = (pathlib.Path(name) for name in sys.argv[1:])

# The package itself needs an older YAML library; its schema is a file.
[schema] = [
    pathlib.Path(folder) / "compose/config/compose_spec.json"
    for folder in sys.path
    if (pathlib.Path(folder) / "compose/config/compose_spec.json").exists()
]
document = yaml.safe_load(compose.read_text(encoding="utf-8"))
jsonschema.Draft7Validator(json.loads(schema.read_text(encoding="utf-8"))).validate(document)
for service in document["services"].values():
    assert set(service.get("networks", [])) <= set(document["networks"]), service
    assert set(service.get("secrets", [])) <= set(document["secrets"]), service
print(f"{compose.name}: well")

objects = list(yaml.safe_load_all(kubernetes.read_text(encoding="utf-8")))
for one in objects:
    kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
print(f"{kubernetes.name}: {len(objects)} objects well")

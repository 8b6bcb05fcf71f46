"""What a run made, in Terraform's language, for those who carry on in it."""

from orchestra_lib.cloud.terraform.export import Export, export_terraform

__all__ = ["Export", "export_terraform"]

# The machine that comfyweb starts and stops, and an account that may do just that. The same as the gcloud lines of the
# README; a test compares both with what the code needs.

terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0"
    }
  }
}

locals {
  region = regex("^(.*)-[a-z]$", var.zone)[0]
}

# -- accounts --------------------------------------------------------------------------------------------------------

resource "google_service_account" "comfyweb" {
  project    = var.project
  account_id = "comfyweb"
}

# The machine's own, which may nothing: Compute Engine's default account may edit the whole project.
resource "google_service_account" "machine" {
  project    = var.project
  account_id = "comfyui-machine"
}

resource "google_project_iam_custom_role" "machine" {
  project = var.project
  role_id = "comfyweb"
  title   = "comfyweb, of its machine"
  permissions = [
    "compute.instances.get",
    "compute.instances.start",
    "compute.instances.stop",
    "compute.instances.setMetadata",
    "compute.instances.setScheduling",
    "compute.instances.getGuestAttributes",
  ]
}

resource "google_compute_instance_iam_member" "comfyweb" {
  project       = var.project
  zone          = var.zone
  instance_name = google_compute_instance.comfyui.name
  role          = google_project_iam_custom_role.machine.id
  member        = google_service_account.comfyweb.member
}

# How a call went is read from its operation, which belongs to the project.
resource "google_project_iam_custom_role" "operations" {
  project     = var.project
  role_id     = "comfywebOperations"
  title       = "comfyweb, of the project"
  permissions = ["compute.zoneOperations.get"]
}

resource "google_project_iam_member" "comfyweb" {
  project = var.project
  role    = google_project_iam_custom_role.operations.id
  member  = google_service_account.comfyweb.member
}

# iam.serviceAccounts.actAs: who starts a machine, or writes its metadata, acts for its account.
resource "google_service_account_iam_member" "comfyweb" {
  service_account_id = google_service_account.machine.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.comfyweb.member
}

# -- the machine -----------------------------------------------------------------------------------------------------

resource "google_compute_address" "comfyui" {
  project = var.project
  region  = local.region
  name    = var.instance
}

# Port 80 leads to 443, and answers the certificates' authority. Who gets in on 443 is ALLOWED_IP's business.
resource "google_compute_firewall" "web" {
  project       = var.project
  name          = "${var.instance}-web"
  network       = var.network
  source_ranges = ["0.0.0.0/0"]
  target_tags   = [var.instance]

  allow {
    protocol = "tcp"
    ports    = ["80", "443"]
  }
}

resource "google_compute_disk" "comfyui" {
  project = var.project
  zone    = var.zone
  name    = "comfyui"
  type    = "pd-balanced"
  size    = var.disk_gb

  lifecycle {
    prevent_destroy = true
  }
}

# It is on when it is made, which the provider can't avoid: stop it once (`terraform output stop`).
resource "google_compute_instance" "comfyui" {
  project                   = var.project
  zone                      = var.zone
  name                      = var.instance
  machine_type              = var.machine_type
  tags                      = [var.instance]
  allow_stopping_for_update = true

  boot_disk {
    initialize_params {
      image = var.image
      size  = 60
      type  = "pd-balanced"
    }
  }

  attached_disk {
    source      = google_compute_disk.comfyui.id
    device_name = "persistent-comfyui"
  }

  guest_accelerator {
    type  = var.gpu
    count = 1
  }

  network_interface {
    network = var.network
    access_config {
      nat_ip = google_compute_address.comfyui.address
    }
  }

  service_account {
    email  = google_service_account.machine.email
    scopes = ["storage-ro"]
  }

  scheduling {
    on_host_maintenance = "TERMINATE"
    automatic_restart   = false
  }

  # comfyweb's: it writes its keys into metadata, and the longest run into scheduling.
  lifecycle {
    ignore_changes = [metadata, scheduling]
  }
}

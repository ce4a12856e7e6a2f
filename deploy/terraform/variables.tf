variable "project" {
  description = "GCP_PROJECT"
  type        = string
}

variable "zone" {
  description = "GCE_ZONE"
  type        = string
  default     = "us-central1-a"
}

variable "instance" {
  description = "GCE_INSTANCE"
  type        = string
  default     = "comfyui-gpu"
}

variable "machine_type" {
  type    = string
  default = "n1-standard-4"
}

variable "gpu" {
  type    = string
  default = "nvidia-tesla-t4"
}

variable "image" {
  description = "With the NVIDIA driver; Debian 12, Ubuntu 22.04 or newer"
  type        = string
  default     = "deeplearning-platform-release/common-cu129-ubuntu-2204-nvidia-580"
}

variable "disk_gb" {
  description = "GB of the disk for models and outputs"
  type        = number
  default     = 200
}

variable "network" {
  type    = string
  default = "default"
}

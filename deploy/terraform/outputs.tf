output "address" {
  description = "For the A record of COMFYUI_DOMAIN"
  value       = google_compute_address.comfyui.address
}

output "account" {
  description = "comfyweb's account: run the app as it, or make a key of it"
  value       = google_service_account.comfyweb.email
}

output "stop" {
  description = "To be run once: a new machine is on"
  value       = "gcloud compute instances stop ${var.instance} --zone=${var.zone} --project=${var.project}"
}

output "settings" {
  description = "Lines for .env"
  value       = <<-END
    GCP_PROJECT=${var.project}
    GCE_ZONE=${var.zone}
    GCE_INSTANCE=${var.instance}
  END
}

"""The words for everything that can go wrong with the machine: one row per kind, the source of the documents too.

`passes`: it goes away by itself. `retry`: when the loop repeats the call without asking anybody; never where a
repetition could surprise the person who pays.
"""

from comfyweb.machine.model import Fault

# Seconds between one failure and the next call.
SOON = (2, 5, 15, 30)
# Google counts calls by the minute or by 100 s ("per user per 100 seconds"): calling sooner only uses up the next.
SLOWLY = (20, 40, 60)

WORDS: tuple[Fault, ...] = (
    Fault(
        code="no-capacity",
        title="No free GPU right now",
        what="Google has no machine of this kind free in this zone at the moment. Nothing was started.",
        todo="Try again in some minutes; it often helps at another time of day. If it stays so, set the machine up "
        "in another zone and name that one in GCE_ZONE.",
        passes=True,
    ),
    Fault(
        code="quota",
        title="Your project's limit is reached",
        what="The machine needs more than a limit (quota) of your Google Cloud project allows in this region.",
        todo="Stop another machine that uses it, or ask for a higher limit in the Google Cloud console under "
        "IAM & Admin, Quotas & System Limits. New projects often begin with a GPU limit of 0.",
    ),
    Fault(
        code="quota-global",
        title="Your project may not use this many GPUs",
        what="Your project's limit for GPUs in all regions together (GPUS_ALL_REGIONS) is reached.",
        todo="Stop another GPU machine, or ask for a higher GPUS_ALL_REGIONS in the Google Cloud console under "
        "IAM & Admin, Quotas & System Limits. New projects often begin with 0.",
    ),
    Fault(
        code="permission",
        title="comfyweb may not do this",
        what="Google refused: the account that comfyweb uses lacks a permission.",
        todo="Somebody who owns the project can grant it: give the account the role Compute Instance Admin (v1), "
        "roles/compute.instanceAdmin.v1, then try again.",
    ),
    Fault(
        code="act-as",
        title="comfyweb may not act for the machine",
        what="The machine runs with a service account of its own, and comfyweb's account may not use that one "
        "(permission iam.serviceAccounts.actAs).",
        todo="Somebody who owns the project can grant it, then try again: gcloud iam service-accounts "
        "add-iam-policy-binding MACHINE_ACCOUNT --member=serviceAccount:ACCOUNT --role=roles/iam.serviceAccountUser",
    ),
    Fault(
        code="api-disabled",
        title="Compute Engine is not switched on",
        what="The Compute Engine API is not enabled in this project.",
        todo="Enable it, wait a few minutes, then try again: gcloud services enable compute.googleapis.com",
    ),
    Fault(
        code="billing",
        title="Billing is off for this project",
        what="Google refused because the project has no working billing account.",
        todo="Check the billing account in the Google Cloud console under Billing, then try again.",
    ),
    Fault(
        code="not-found",
        title="The machine was not found",
        what="There is no machine with this name in this project and zone.",
        todo="Check GCP_PROJECT, GCE_ZONE and GCE_INSTANCE. If the machine was deleted, create it again.",
    ),
    Fault(
        code="place-not-found",
        title="The project or zone was not found",
        what="Google knows no such project or zone, or hides it from comfyweb's account.",
        todo="Check GCP_PROJECT and GCE_ZONE, and that the key belongs to this project.",
    ),
    Fault(
        code="part-not-found",
        title="Something the machine needs is gone",
        what="The machine needs a disk, network or image that does not exist.",
        todo="Open the machine in the Google Cloud console and replace or detach what is gone.",
    ),
    Fault(
        code="operation-forgotten",
        title="The outcome of a call is unknown",
        what="Google no longer knows how an earlier call ended.",
        todo="Nothing: comfyweb looks at the machine again and goes on from there.",
        passes=True,
        retry=SOON,
    ),
    Fault(
        code="credentials-missing",
        title="No Google credentials",
        what="comfyweb has no usable key or other credentials for Google Cloud.",
        todo="Set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file that comfyweb can read, or run it "
        "where credentials are provided. It is picked up without a restart.",
    ),
    Fault(
        code="credentials-refused",
        title="Google refused the credentials",
        what="The key or sign-in that comfyweb uses is expired, revoked or wrong.",
        todo="Make a new key for the service account and replace the file; also check this server's clock. "
        "It is picked up without a restart.",
    ),
    Fault(
        code="network",
        title="Google can't be reached",
        what="The connection to Compute Engine was refused or broke off.",
        todo="Nothing, if it was a hiccup: comfyweb keeps trying. Otherwise check this server's network and firewall. "
        "A running machine stays on meanwhile and stops itself when idle.",
        passes=True,
        retry=SOON,
    ),
    Fault(
        code="network-name",
        title="Google's name can't be looked up",
        what="This server could not find the network address of Compute Engine (DNS).",
        todo="comfyweb keeps trying. Check this server's network and its DNS.",
        passes=True,
        retry=SOON,
    ),
    Fault(
        code="network-tls",
        title="No secure connection to Google",
        what="The certificate that answered for Compute Engine could not be verified.",
        todo="Check this server's clock and whether a proxy on the way replaces certificates.",
    ),
    Fault(
        code="network-timeout",
        title="Google did not answer in time",
        what="Compute Engine gave no answer within the time allowed.",
        todo="Nothing: comfyweb keeps trying. If it lasts, check this server's network.",
        passes=True,
        retry=SOON,
    ),
    Fault(
        code="bad-answer",
        title="An answer that makes no sense",
        what="What answered for Compute Engine was incomplete or not Compute Engine.",
        todo="comfyweb keeps trying. If it lasts, check COMPUTE_ENDPOINT and any proxy on the way.",
        passes=True,
        retry=SOON,
    ),
    Fault(
        code="unavailable",
        title="Compute Engine has trouble",
        what="Google reports an error on its own side.",
        todo="Nothing: comfyweb keeps trying. If it lasts, see the Google Cloud status page.",
        passes=True,
        retry=SOON,
    ),
    Fault(
        code="rate-limit",
        title="Too many calls to Google",
        what="Google asks for fewer calls a minute from this project.",
        todo="Nothing: comfyweb waits and tries again. If it lasts, look for other programs that use the project.",
        passes=True,
        retry=SLOWLY,
    ),
    Fault(
        code="not-ready",
        title="The machine is still busy",
        what="The machine has not finished its last change, for example stopping.",
        todo="Nothing: comfyweb tries again when it has.",
        passes=True,
        retry=SOON,
    ),
    Fault(
        code="not-off",
        title="The machine is not off",
        what="The longest time of a run can be set only while the machine is off, and it was on by then.",
        todo="Nothing: comfyweb looks again and goes on from there.",
        passes=True,
        retry=SOON,
    ),
    Fault(
        code="changed-meanwhile",
        title="Somebody else changed the machine",
        what="The machine's settings were changed by somebody else at the same moment, several times.",
        todo="Nothing: comfyweb tries again. If it lasts, look for another program that changes its metadata.",
        passes=True,
        retry=SOON,
    ),
    Fault(
        code="called-off",
        title="Called off meanwhile",
        what="Somebody asked Google for something else before this was done, for example to stop the machine.",
        todo="Look at what the machine does now, and ask again if you still want it.",
    ),
    Fault(
        code="in-use",
        title="Something it needs is in use",
        what="Something this machine needs, usually its disk, is in use by another machine.",
        todo="Stop the other machine or detach the disk from it, then try again.",
    ),
    Fault(
        code="asked-long-ago",
        title="The start was not carried out",
        what="Somebody asked for a start, and for an hour it could not be tried. It is not made up for now, since "
        "nobody may be waiting for it any more.",
        todo="Start it again if you still want it.",
    ),
    Fault(
        code="ledger",
        title="comfyweb's database does not answer",
        what="What people ask for cannot be stored, so nothing new is done, and what is shown here may be old.",
        todo="The log of comfyweb says why: a full disk, a locked file, a server that is down.",
        passes=True,
        retry=SOON,
    ),
    Fault(
        code="loop",
        title="comfyweb has failed inside",
        what="It tries again every few seconds. Until then nothing new is done, and what is shown here may be old.",
        todo="The log of comfyweb has the cause. A machine that runs still stops itself when nobody uses it.",
        passes=True,
    ),
    Fault(
        code="no-news",
        title="No news of the machine",
        what="Another process of comfyweb runs this machine, and it has not been heard for some seconds. What is shown "
        "here may be old.",
        todo="Nothing at first: when that process has ended, another takes its place within ten seconds. If it lasts, "
        "check Redis (REDIS_URL) and the log of comfyweb. What you ask for is stored all the same.",
        passes=True,
    ),
    Fault(
        code="stopped-at-once",
        title="The machine went off again at once",
        what="Google started the machine, but it was off again before comfyweb saw it run.",
        todo="Try again. If it happens again, look at the machine's log (serial port 1) in the Google Cloud console.",
    ),
    Fault(
        code="stop-stuck",
        title="The stop takes unusually long",
        what="The machine has been stopping for more than five minutes. Until it is off, it may go on costing money.",
        todo="comfyweb calls the stop again, by force, every five minutes. If it is still not off after half an hour, "
        "look at it in the Google Cloud console under Compute Engine, VM instances, and ask Google's support.",
        passes=True,
    ),
    Fault(
        code="start-stuck",
        title="The start takes unusually long",
        what="Google has been providing the machine for more than ten minutes.",
        todo="Wait, or press Stop to give up. The Google Cloud console shows under Operations what it waits for.",
        passes=True,
    ),
    Fault(
        code="suspended",
        title="The machine is suspended",
        what="Somebody suspended the machine. comfyweb can't start it from there.",
        todo="Resume or stop it in the Google Cloud console under Compute Engine, VM instances.",
    ),
    Fault(
        code="suspending",
        title="The machine is being suspended",
        what="Somebody is suspending the machine right now.",
        todo="Wait until it is done, then resume or stop it in the Google Cloud console.",
        passes=True,
    ),
    Fault(
        code="repairing",
        title="Google is repairing the machine",
        what="The machine met a fault at Google's side and is being repaired.",
        todo="Wait some minutes: it comes back by itself. If it lasts an hour, ask Google's support.",
        passes=True,
    ),
    Fault(
        code="deprovisioning",
        title="The machine is being taken down",
        what="Google is giving the machine's resources back, because somebody stops or deletes it.",
        todo="Wait a minute and look again. If it is deleted, it has to be created again.",
        passes=True,
    ),
    Fault(
        code="not-looked-yet",
        title="One moment",
        what="The machine has not been looked at yet.",
        todo="Nothing: comfyweb is looking now.",
        passes=True,
    ),
    Fault(
        code="unknown",
        title="Google refused",
        what="Google gave no reason.",
        todo="Try again. If it stays so, look at the machine in the Google Cloud console.",
    ),
)

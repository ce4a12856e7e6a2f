"""IAM's REST, as far as comfyweb's doctor asks it: whether the caller may act for the machine's service account.

https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts/testIamPermissions
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from comfyweb.demo.bodies import permissions_in
from comfyweb.demo.box import Box
from comfyweb.demo.model import SERVICE_ACCOUNT, Refusal
from comfyweb.demo.rest import body_of, refused

ACT_AS = "iam.serviceAccounts.actAs"


def iam_routes(box: Box) -> list[Route]:
    """Make the one route. There is one service account: the machine's."""

    async def test(request: Request) -> Response:
        try:
            box.identity.caller(request.headers.get("authorization", ""), box.clock.now())
            asked = permissions_in(await body_of(request))
        except Refusal as found:
            return refused(found)
        if request.path_params["account"] != SERVICE_ACCOUNT:
            return refused(Refusal(404, "notFound", "Unknown service account"))
        granted = [name for name in asked if name == ACT_AS and not box.world.faults.no_act_as]
        return JSONResponse({"permissions": granted} if granted else {})

    path = "/v1/projects/{project}/serviceAccounts/{account}:testIamPermissions"
    return [Route(path, test, methods=["POST"])]

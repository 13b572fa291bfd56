"""Everything speaks TLS where the URL says so."""

from collections.abc import Callable
from pathlib import Path

import pytest

from celery_daemons import AddressBook
from celery_daemons.errors import StoreUnavailable
from tests.conftest import NewProject, NewServer, NewWorker
from tests.integration.conftest import QUICK, SOON, Client
from tests.support.certificates import self_signed, tls_config
from tests.support.projects import PRELUDE, Project
from tests.support.recorder import RECORDED_LAUNCHERS
from tests.support.servers import free_port

SOURCE = (
    PRELUDE.replace("broker=BROKER_URL", 'broker=os.environ["BROKER"]')
    + RECORDED_LAUNCHERS
    + "\n\n@watch.recovery_scanner\ndef one():\n    yield watch.spec('listed')\n"
)


def test_a_cluster_runs_over_tls_and_trusts_only_the_configured_authority(
    new_server: NewServer,
    new_project: NewProject,
    new_worker: NewWorker,
    client_of: Callable[[Project], Client],
    tmp_path: Path,
) -> None:
    # Given a Redis that speaks TLS, and a broker that does not
    key, certificate = self_signed(tmp_path, "localhost")
    port = free_port()
    server = new_server(*tls_config(port, key, certificate), flavour="redis")
    url = f"rediss://localhost:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={certificate}"
    project = new_project(SOURCE, broker_url=url, settings={**QUICK, "redis_url": url})
    client = client_of(project)

    # When
    new_worker(project, "w1", concurrency=1, wait=False, env={"BROKER": new_server().url})

    # Then
    client.wait_running("listed", within=SOON)
    secured = [line for line in server.client().client_list() if line["laddr"].endswith(f":{port}")]
    assert len(secured) >= 3, "agent, monitor and this client, at least"

    # And without the authority there is no connection
    stranger = AddressBook.connect(f"rediss://localhost:{port}/0", project.namespace)
    with pytest.raises(StoreUnavailable, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
        stranger.__enter__()

"""Implements the pytest hooks of the plugin, each in a few lines that delegate; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_llmdevice.errors import CARRIED
from pytest_llmdevice.plugin import fixtures, flags, hookspecs, options


def pytest_addoption(parser: pytest.Parser) -> None:
    flags.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    flags.add_markers(config)
    config.pluginmanager.register(fixtures, "llmdevice-fixtures")
    settings = options.Settings.from_config(config)
    if settings.active:
        # By the name of the module: a run inside of another one, as pytester makes it, must not get that one's.
        from pytest_llmdevice.plugin.matrix_plugin import begin

        begin(config, settings)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if fixtures.RUN not in config.stash:
        # Imported only when a marker needs it: collecting must stay cheap for a project that does not use it.
        for item in items:
            if any(item.iter_markers("llm_matrix")) or any(item.iter_markers("llm_requires")):
                from pytest_llmdevice.plugin.parametrize import skip_beyond_reference

                skip_beyond_reference(item)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if fixtures.RUN in session.config.stash:
        from pytest_llmdevice.plugin.honesty import refuse_missing_parts

        # A conftest may have taken one out since.
        refuse_missing_parts(session.config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo is None or not hasattr(call.excinfo.value, CARRIED):
        return (yield)
    from pytest_llmdevice.plugin.failures import attach, briefly

    briefly(item, call)
    report = yield
    attach(report, call)
    return report

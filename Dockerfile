ARG PYTHON_IMAGE=python:3.13-slim
FROM ${PYTHON_IMAGE} AS build
WORKDIR /source
RUN python -m venv /venv
COPY requirements-serve.lock ./
RUN /venv/bin/pip install --no-cache-dir --require-hashes --requirement requirements-serve.lock
COPY LICENSE README.md pyproject.toml ./
COPY clients/js/src clients/js/src
COPY migrations migrations
COPY notifier notifier
COPY sql sql
# These sources; or the wheel of a release (make release): --build-arg PACKAGE=dist/postgres_notifier-….whl
ARG PACKAGE=.
COPY LICENSE dist*/*.whl dist/
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation ${PACKAGE}

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin notifier
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
# Mount notifier.toml here, if you use one.
WORKDIR /etc/notifier
USER notifier
EXPOSE 8181
# A request to the local process, so the certificate's name is not checked.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", "\
import os, ssl, urllib.request\n\
status = os.environ.get('NOTIFIER_STATUS_PORT', '')\n\
scheme = 'https' if os.environ.get('NOTIFIER_SSL_CERTFILE') and not status else 'http'\n\
port = status or os.environ.get('NOTIFIER_PORT', '')\n\
port = port if port.isdigit() else 8181\n\
context = ssl._create_unverified_context()\n\
urllib.request.urlopen(f'{scheme}://127.0.0.1:{port}/livez', timeout=4, context=context)\n"]
ENTRYPOINT ["notifier"]
CMD ["serve"]

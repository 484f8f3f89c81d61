namespace Cbd.Host;

/// <summary>
/// A file whose space is allocated before its content is known, so that to write the content needs no more space. All may read it when it is
/// at its place; disposed of before, it is removed. One thread at a time.
/// </summary>
internal sealed class PreparedFile : IDisposable
{
    private readonly string _path;
    private readonly FileStream _file;
    private bool _isAtPlace;

    /// <summary>Makes the file. Throws what .NET throws where that cannot be.</summary>
    /// <param name="directory">Where it is.</param>
    /// <param name="name">Its name until then, with the suffix of <see cref="AtomicFile"/>. One that a process left there at its death is replaced.</param>
    /// <param name="mostBytes">Space for so much.</param>
    public PreparedFile(string directory, string name, int mostBytes)
    {
        _path = Path.Combine(directory, name);
        try
        {
            File.Delete(_path);
        }
        catch (UnauthorizedAccessException)
        {
            // Another user has put something there, or a directory is there: this name nobody can guess.
            _path = Path.Combine(directory, $"{Guid.NewGuid():N}{AtomicFile.TemporarySuffix}");
        }

        _file = new FileStream(_path, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, BufferSize = 0, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite });
        try
        {
            _file.Write(new byte[mostBytes]);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Puts it at a path of that directory, as a whole, in the place of a file that is there. Not on the medium yet. Throws as above.</summary>
    public void MoveTo(string path, ReadOnlySpan<byte> bytes)
    {
        _file.Position = 0;
        _file.Write(bytes);
        _file.SetLength(bytes.Length);
        // The umask has no say in it.
        File.SetUnixFileMode(_file.SafeFileHandle, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead);
        File.Move(_path, path, overwrite: true);
        _isAtPlace = true;
    }

    public void Dispose()
    {
        _file.Dispose();
        if (_isAtPlace)
            return;
        try
        {
            File.Delete(_path);
        }
        catch (Exception e) when (AtomicFile.IsOfSystem(e))
        {
            // It says nothing.
        }
    }
}

namespace Cbd.Format;

public static class BackendEntry
{
    public const int SizeBytes = 2048;
}

namespace Cbd.Format;

public static class HostEntry
{
    public const int SizeBytes = 2048;
}
